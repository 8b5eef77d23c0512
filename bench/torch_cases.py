"""The same divergences in torch, of logits, as its users write them; needs torch, and liger-kernel needs a GPU.

`torch` and `torch.compile` are one formula, eager and compiled. liger-kernel has fused losses of log-probabilities,
which are the mean over the batch and have no gradient in p.
"""

import torch
import torch.nn.functional as F
from torch.distributions import Categorical, kl_divergence

from bench.cases import package


def _logs(p, q):
    return F.log_softmax(p, -1), F.log_softmax(q, -1)


def _kl(p, q):
    a, b = _logs(p, q)
    return F.kl_div(b, a, log_target=True, reduction="none").sum(-1)


def _js(p, q):
    a, b = _logs(p, q)
    m = torch.log((a.exp() + b.exp()) / 2)
    return sum(F.kl_div(m, x, log_target=True, reduction="none").sum(-1) for x in (a, b)) / 2


def _tv(p, q):
    return (F.softmax(p, -1) - F.softmax(q, -1)).abs().sum(-1) / 2


def _hellinger_sq(p, q):
    return 1 - (F.softmax(p, -1) * F.softmax(q, -1)).sqrt().sum(-1)


def _renyi(p, q):
    a, b = _logs(p, q)
    return torch.logsumexp(1.5 * a - 0.5 * b, -1) / 0.5


def _liger_kl(p, q):
    a, b = _logs(p, q)
    return package("liger").LigerKLDIVLoss(reduction="batchmean", log_target=True)(b, a)


def _liger_js(p, q):
    a, b = _logs(p, q)
    return package("liger").LigerJSD(beta=0.5)(b, a)


def _liger_tv(p, q):
    return package("liger").LigerTVDLoss(reduction="batchmean")(F.softmax(q, -1), F.softmax(p, -1))


FORMULAS = {"kl": _kl, "js": _js, "tv": _tv, "hellinger_sq": _hellinger_sq, "renyi": _renyi}
PEERS = {
    "torch": FORMULAS,
    "torch.distributions": {"kl": lambda p, q: kl_divergence(Categorical(logits=p), Categorical(logits=q))},
    "torch.compile": FORMULAS,
    "liger": {"kl": _liger_kl, "js": _liger_js, "tv": _liger_tv},
}
MEAN = ("liger",)  # the value is the mean over the batch


def here(peer: str) -> bool:
    """Whether a peer can run on this machine."""
    return peer != "liger" or (torch.cuda.is_available() and package("liger") is not None)
