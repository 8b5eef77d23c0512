"""Fit the polynomials of _num, _half and _log: python bench/fit_coefficients.py prints the tables and their errors.

Chebyshev interpolation at 60 digits, then the coefficients are rounded to float64. The degree is the smallest
whose relative error stays below the target, 2^-27 for float32 and 2^-53 for float64; 2^-24 and none for the remainder
of a logarithm, of which it is a small part and which float64 leaves to the compiler.
"""

import mpmath as mp

mp.mp.dps = 60


def exp_remainder(z):
    """(e^z - 1 - z) / z^2."""
    z = mp.mpf(z)
    return mp.mpf(1) / 2 if z == 0 else (mp.expm1(z) - z) / z**2


def atanh_remainder(z):
    """(atanh(sqrt z) / sqrt z - 1) / z."""
    z = mp.mpf(z)
    return mp.mpf(1) / 3 if z == 0 else (mp.atanh(mp.sqrt(z)) / mp.sqrt(z) - 1) / z


def half_near(z):
    """((1 + u) log(1 + u) + (1 - u) log(1 - u)) / 2 u^2, z = u^2."""
    u = mp.sqrt(z)
    return mp.mpf(1) / 2 if z == 0 else ((1 + u) * mp.log1p(u) + (1 - u) * mp.log1p(-u)) / 2 / z


def half_far(a):
    """(2 - a) log(2 - a) / 2."""
    return (2 - a) * mp.log(2 - a) / 2


def log_remainder(f):
    """(log(1 + f) - f) / f^2."""
    return -mp.mpf(1) / 2 if abs(f) < mp.mpf(2) ** -80 else (mp.log1p(f) - f) / f**2


def fit(function, low, high, target):
    """Coefficients, lowest first, and the worst relative error on a grid."""
    grid = [low + (high - low) * mp.mpf(i) / 500 for i in range(501)]
    for terms in range(3, 30):
        coefficients = [mp.mpf(float(c)) for c in mp.chebyfit(function, [low, high], terms)][::-1]
        worst = max(abs(mp.polyval(coefficients[::-1], x) / function(x) - 1) for x in grid)
        if worst < target:
            return coefficients, worst
    raise ArithmeticError("no degree below 30 reaches the target")


if __name__ == "__main__":
    usual = {"float32": 27, "float64": 53}
    for name, function, low, high, targets in [
        ("EXP_REMAINDER", exp_remainder, mp.mpf(-1), mp.mpf(1), usual),
        ("ATANH_REMAINDER", atanh_remainder, mp.mpf(0), mp.mpf(1) / 4, usual),
        ("_half._NEAR", half_near, mp.mpf(0), mp.mpf(1) / 4, usual),
        ("_half._FAR", half_far, mp.mpf(0), mp.mpf(1) / 2, usual),
        ("_log._REST", log_remainder, mp.sqrt(mp.mpf(1) / 2) - 1, mp.sqrt(2) - 1, {"float32": 24}),
    ]:
        for dtype, bits in targets.items():
            coefficients, worst = fit(function, low, high, mp.mpf(2) ** -bits)
            print(f"# {name} {dtype}: {len(coefficients)} terms, worst relative error 2^{float(mp.log(worst, 2)):.1f}")
            print("(" + ", ".join(repr(float(c)) for c in coefficients) + "),")
