"""Speed and memory of `metacpo.solver`, forward and backward, and what a cone-program layer needs for the same.

    python benchmarks/solver.py [--sizes 1500 10000 100000 1000000]

writes benchmarks/solver.csv and docs/solver_scaling.png:

1. Euclidean metric, n = 1,500, one constraint: ours against cvxpylayers (CVXPY's canonical form, solved and
   differentiated by diffcp), both by `jax.grad`.
2. KL metric of a Gaussian policy at each size: time of value and gradient with respect to g, B, c and the policy's
   parameters, and peak memory of the process that did it; the cone program that such a layer makes of it (H dense,
   Clarabel, diffcp's derivative), until a limit of time or memory.
3. m = 1, 2, 4, 8, 16 constraints at the smallest size.
4. Conjugate gradients to a tolerance in the policy's KL metric.

Every measurement runs in a process of its own, so that peak memory is its own; finished rows of the CSV are kept.
"""

import argparse
import csv
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

COLUMNS = ("what", "n", "m", "seconds", "peak_mib", "iterations", "note")
STATES, DAMPING, CG_STEPS = 200, 0.1, 10
DENSE_LIMIT = 2500  # the layer holds H, its factor and a KKT system of size 2n: beyond, minutes and gigabytes


def policy_of(n: int):
    """A Gaussian policy with two hidden layers and about n parameters."""
    from metacpo.policies import GaussianPolicy

    width = max(4, round((-70 + (70**2 + 4 * n) ** 0.5) / 2))
    return GaussianPolicy(observation_size=60, action_size=8, hidden=(width, width), initial_std=0.5)


def timed(function, *args, seconds: float = 2.0) -> float:
    """Median time of a compiled call, over as many as fit."""
    import jax

    jax.block_until_ready(function(*args))
    times, end = [], time.perf_counter() + seconds
    while len(times) < 3 or (time.perf_counter() < end and len(times) < 200):
        begin = time.perf_counter()
        jax.block_until_ready(function(*args))
        times.append(time.perf_counter() - begin)
    return float(np.median(times))


def kl_problem(n: int, m: int, dtype=np.float32):
    import jax
    import jax.numpy as jnp

    policy, rng = policy_of(n), np.random.default_rng(0)
    phi = policy.init(jax.random.key(0))
    z = jnp.asarray(rng.normal(size=(STATES, 60)), dtype)
    g, b = (jnp.asarray(rng.normal(size=s), dtype) for s in ((policy.size,), (m, policy.size)))
    b = b - 0.3 * g  # lowering the objective raises the constraints: they bind
    return policy, phi, z, g, b, jnp.full((m,), -1e-3, dtype)


def ours_kl(n: int, m: int, tolerance: float = 0.0) -> dict:
    """Value and gradient in the KL metric, `CG_STEPS` iterations as the inner loop runs, or to a tolerance."""
    import jax
    import jax.numpy as jnp

    from metacpo.solver import CGSettings, Problem, solve

    policy, phi, z, g, b, c = kl_problem(n, m)
    cg = CGSettings(rtol=tolerance, max_steps=CG_STEPS if tolerance == 0 else 1000)

    def loss(phi, g, b, c):
        metric = policy.fisher(phi, z, jnp.ones(STATES), DAMPING)
        sol = solve(Problem(g, b, c, metric, jnp.float32(0.01)), cg=cg)
        return jnp.sum(g * sol.step), (sol.stats.iterations, sol.case)

    run = jax.jit(jax.value_and_grad(loss, range(4), has_aux=True))
    seconds = timed(run, phi, g, b, c)
    (_, (iterations, case)), _ = run(phi, g, b, c)
    return {"n": policy.size, "seconds": seconds, "iterations": int(jnp.max(iterations)), "note": f"case {int(case)}"}


def ours_euclidean(n: int, m: int) -> dict:
    import jax
    import jax.numpy as jnp

    from metacpo.solver import Problem, solve

    g, b, c = euclidean(n, m)

    def loss(g, b, c):
        return jnp.sum(g * solve(Problem(g, b, c, None, jnp.float32(0.01))).step)

    run = jax.jit(jax.value_and_grad(loss, range(3)))
    return {"n": n, "seconds": timed(run, *(jnp.asarray(a, jnp.float32) for a in (g, b, c)))}


def euclidean(n: int, m: int):
    rng = np.random.default_rng(0)
    g, b = rng.normal(size=n), rng.normal(size=(m, n))
    return g, b - 0.3 * g, np.full(m, -1e-3)


def layer(g, b, c, root, repeats: int = 3) -> float:
    """Seconds of diffcp's solution and one adjoint product; ½xᵀHx ≤ 0.01 with H = root·rootᵀ."""
    import diffcp
    import scipy.sparse as sp

    n, m = len(g), len(c)
    a = sp.vstack([sp.csc_matrix(b), sp.csc_matrix((1, n)), -sp.csc_matrix(root).T]).tocsc()
    rhs = np.concatenate([-c, [np.sqrt(0.02)], np.zeros(n)])
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        _, y, s, _, adjoint = diffcp.solve_and_derivative(
            a, rhs, g, {"l": m, "q": [n + 1]}, solve_method="Clarabel", verbose=False
        )
        adjoint(g, np.zeros_like(y), np.zeros_like(s))
        times.append(time.perf_counter() - begin)
    return float(np.median(times))


def layer_euclidean(n: int, m: int) -> dict:
    """cvxpylayers itself, in float64: it has no other."""
    import cvxpy as cp
    import jax
    import jax.numpy as jnp
    from cvxpylayers.jax import CvxpyLayer

    jax.config.update("jax_enable_x64", True)
    x, g, b, c = cp.Variable(n), cp.Parameter(n), cp.Parameter((m, n)), cp.Parameter(m)
    problem = cp.Problem(cp.Minimize(g @ x), [c + b @ x <= 0, cp.norm(x, 2) <= 0.02**0.5])
    solve = CvxpyLayer(problem, parameters=[g, b, c], variables=[x])
    run = jax.value_and_grad(lambda g, b, c: jnp.sum(g * solve(g, b, c)[0]), range(3))
    return {"n": n, "seconds": timed(run, *map(jnp.asarray, euclidean(n, m)))}


def layer_kl(n: int, m: int) -> dict:
    import jax
    import jax.numpy as jnp

    policy, phi, z, g, b, c = kl_problem(n, m)
    if policy.size > DENSE_LIMIT:
        gib = 3 * policy.size**2 * 8 / 2**30
        return {"n": policy.size, "note": f"not run: H, its root and A take {gib:.0f} GiB, the KKT factors more"}
    H = jax.vmap(policy.fisher(phi, z, jnp.ones(STATES), DAMPING).mv)(jnp.eye(policy.size))
    root = np.linalg.cholesky(np.asarray(H + H.T, np.float64) / 2)
    return {"n": policy.size, "seconds": layer(*(np.asarray(a, np.float64) for a in (g, b, c)), root, repeats=1)}


def measurements(sizes: list[int]) -> list[tuple[str, str, dict]]:
    """(name, function, arguments) of every row."""
    small = sizes[0]
    rows = [("ours, Euclidean", "ours_euclidean", {"n": small, "m": 1})]
    rows += [("layer, Euclidean", "layer_euclidean", {"n": small, "m": 1})]
    rows += [("ours, KL", "ours_kl", {"n": n, "m": 1}) for n in sizes]
    rows += [("layer, KL", "layer_kl", {"n": n, "m": 1}) for n in sizes]
    rows += [("ours, KL, m rows", "ours_kl", {"n": small, "m": m}) for m in (1, 2, 4, 8, 16)]
    rows += [("ours, KL to 1e-4", "ours_kl", {"n": n, "m": 1, "tolerance": 1e-4}) for n in sizes[:2]]
    return rows


def measure(function: str, arguments: dict) -> dict:
    """In a fresh process; a layer that is not installed, or a process that dies, is a note."""
    command = [sys.executable, __file__, "--measure", function, json.dumps(arguments)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    except subprocess.TimeoutExpired:
        return {"n": arguments["n"], "note": "not finished in 900 s"}
    if done.returncode != 0:
        return {"n": arguments["n"], "note": (done.stderr.strip().splitlines() or ["killed"])[-1][:80]}
    return json.loads(done.stdout.splitlines()[-1])


def slope(rows: list[dict], column: str) -> float:
    """Of log(column) against log n, least squares."""
    points = [(float(r["n"]), float(r[column])) for r in rows if r["what"] == "ours, KL" and r["seconds"]]
    return float(np.polyfit(*np.log(np.array(points)).T, 1)[0]) if len(points) > 1 else float("nan")


def plot(rows: list[dict], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6))
    for axis, column, label in zip(axes, ("seconds", "peak_mib"), ("seconds", "peak MiB of the process"), strict=True):
        for name, mark in (("ours, KL", "o-"), ("layer, KL", "s--")):
            points = [(float(r["n"]), float(r[column])) for r in rows if r["what"] == name and r["seconds"]]
            if points:
                axis.loglog(
                    *zip(*points, strict=True),
                    mark,
                    label=name.replace("ours", "metacpo").replace("layer", "cone program"),
                )
        axis.set(xlabel="parameters n", ylabel=label, title=f"slope {slope(rows, column):.2f}")
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.suptitle("Constrained step and its gradient in the KL metric, one constraint")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_500, 10_000, 100_000, 1_000_000])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/solver.csv"))
    parser.add_argument("--plot", type=Path, default=Path("docs/solver_scaling.png"))
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        name, arguments = options.measure
        row = globals()[name](**json.loads(arguments))
        row["peak_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        print(json.dumps(row))
        return

    rows: list[dict] = []
    if options.out.exists():
        with options.out.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    # n as it was asked for identifies a row; the policy's own n is what is written and plotted.
    done = {(r["what"], r["note"].rpartition("asked ")[2], r["m"]) for r in rows}
    for what, function, arguments in measurements(options.sizes):
        key = (what, str(arguments["n"]), str(arguments["m"]))
        if key in done:
            continue
        result = measure(function, arguments)
        note = f"{result.get('note', '')}; asked {arguments['n']}".removeprefix("; ")
        row = (
            {"what": what, "m": arguments["m"], "seconds": "", "peak_mib": "", "iterations": ""}
            | result
            | {"note": note}
        )
        rows.append({name: f"{row[name]:.3g}" if isinstance(row[name], float) else str(row[name]) for name in COLUMNS})
        print(*rows[-1].values(), sep="\t", flush=True)
        with options.out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    seconds = {r["what"]: float(r["seconds"]) for r in rows if r["seconds"] and "Euclidean" in r["what"]}
    if len(seconds) == 2:
        print(
            f"Euclidean: the layer takes {seconds['layer, Euclidean'] / seconds['ours, Euclidean']:.0f} times as long"
        )
    print(f"slopes of log-log: time {slope(rows, 'seconds'):.2f}, peak memory {slope(rows, 'peak_mib'):.2f}")
    plot(rows, options.plot)


if __name__ == "__main__":
    main()
