"""How the step is differentiated: an argument of `metacpo.solver.solve`, as in Optimistix."""

import equinox as eqx


class Implicit(eqx.Module):
    """dy = H⁻¹(dv − dH y) for every y = H⁻¹v: one more solve for each derivative, whatever CG did to find y.

    Both modes, every order; memory does not grow with the iterations.
    """


class Unrolled(eqx.Module):
    """Through the arithmetic of all `CGSettings.max_steps` iterations: the derivative of the y that was computed.

    Both modes, every order; reverse mode stores every iterate. Differs from `Implicit` where CG stopped early.
    What follows y, the multipliers and the step, is differentiated alike.
    """


class FirstOrder(eqx.Module):
    """The whole solution is a constant: derivatives that pass through it are 0."""


Adjoint = Implicit | Unrolled | FirstOrder
