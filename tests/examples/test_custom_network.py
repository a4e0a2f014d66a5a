"""The example of a network of one's own: trained, kept and loaded by its name on the command line."""

import csv
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import metacpo
from metacpo.cli import main as cli
from metacpo.config.schema import Config
from metacpo.training.setup import build

NETWORKS = Path(__file__).parents[2] / "examples" / "custom_network" / "networks.py"
SHORT = "--iterations 2 --algorithm cpo --meta.tasks 2 --meta.episodes 20 --adaptation.steps 0 --adaptation.tasks 2"


@pytest.mark.slow
def test_layers_with_a_norm_are_trained(tmp_path, monkeypatch, capsys):
    """By a relative path, from which the run is found again from elsewhere."""
    monkeypatch.chdir(NETWORKS.parent)
    run = tmp_path / "run"
    code = cli.main(["train", "bandit", "--network", "networks.py:LayerNormMLP", "--run-dir", str(run), *SHORT.split()])
    assert code == 0, capsys.readouterr().err
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 and any(float(row["Meta/KL"]) > 0 for row in rows)
    assert float(rows[0]["Train/PolicyStd"]) == pytest.approx(0.3, rel=0.2)
    monkeypatch.chdir(tmp_path)
    policy = metacpo.load_policy(run)
    action = policy(np.zeros(policy.description.observation_size, np.float32), deterministic=True)
    assert action.shape == (2,) and bool(jnp.all(jnp.isfinite(action)))


@pytest.mark.slow
def test_the_recurrent_cell_reads_the_steps_in_their_order():
    """The newest step, which stands first, weighs otherwise than the oldest, and the present is not part of them."""
    config = Config.preset("navigation", network=f"{NETWORKS.resolve()}:Recurrent", history=4)
    policy, env = build(config).policy, build(config).env
    plain = metacpo.make("navigation")
    entry = plain.observation_size + plain.action_size + 1
    assert env.observation_size == plain.observation_size + 4 * entry
    phi = policy.init(jax.random.key(0))
    z = jax.random.normal(jax.random.key(1), (env.observation_size,))
    past = z[plain.observation_size :].reshape(4, entry)
    turned = jnp.concatenate([z[: plain.observation_size], past[::-1].ravel()])
    assert not np.allclose(policy(phi, z).mean, policy(phi, turned).mean, atol=1e-4)
    assert float(jnp.mean(policy(phi, z).std)) == pytest.approx(0.6, rel=0.3)


def test_what_is_wrong_is_one_line_before_any_training(tmp_path, capsys):
    (tmp_path / "nets.py").write_text("import equinox as eqx\nNet = eqx.nn.Linear\nnumber = 3\n")
    says = {
        f"{NETWORKS}:Recurrent": "observations are not those of --history 4",
        f"{NETWORKS}:small": "is no class of Equinox modules but function",
        f"{NETWORKS}:Small": "has no attribute 'Small'",
        f"{tmp_path}/nets.py:number": "is no class of Equinox modules but int",
        f"{tmp_path}/gone.py:Net": "cannot be imported",
        "nets": "is neither MODULE:CLASS nor FILE.py:CLASS",
    }
    for network, words in says.items():
        assert cli.main(["train", "bandit", "--network", network, "--run-dir", str(tmp_path / "run")]) == 2
        err = capsys.readouterr().err
        assert err.startswith("metacpo: network: ") and words in err and err.count("\n") == 1
    network = f"{NETWORKS}:LayerNormMLP"
    assert cli.main(["train", "bandit", "--network", network, "--hidden", "8", "--run-dir", str(tmp_path / "run")]) == 2
    assert "hidden: [8] beside network" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
