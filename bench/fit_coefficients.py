"""Fit the polynomials of kljax/_num.py: python bench/fit_coefficients.py prints the tables and their errors.

Chebyshev interpolation at 60 digits, then the coefficients are rounded to float64. The degree is the smallest
whose relative error stays below the target, 2^-27 for float32 and 2^-53 for float64.
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
    for name, function, low, high in [
        ("EXP_REMAINDER", exp_remainder, mp.mpf(-1), mp.mpf(1)),
        ("ATANH_REMAINDER", atanh_remainder, mp.mpf(0), mp.mpf(1) / 4),
    ]:
        for bits, target in [(32, mp.mpf(2) ** -27), (64, mp.mpf(2) ** -53)]:
            coefficients, worst = fit(function, low, high, target)
            print(
                f"# {name} float{bits}: {len(coefficients)} terms, worst relative error 2^{float(mp.log(worst, 2)):.1f}"
            )
            print("(" + ", ".join(repr(float(c)) for c in coefficients) + "),")
