"""Other libraries' loops learn, save and resume sigma too: what the how-to pages do not show."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torchjd.aggregation import IMTLG, MGDA, ConFIG, PCGrad, UPGrad
from torchjd.autojac import jac_to_grad, mtl_backward
from torchmetrics import MeanAbsoluteError
from transformers import TrainingArguments
from transformers.utils import is_torch_available

from tests.pages import BLOCK, ROOT, code_of, run_on_two_processes
from uncertainty_mtl import LaplaceHead, UncertaintyWeightedLoss

HOW_TO = ROOT / "docs" / "how_to"

pytestmark = pytest.mark.filterwarnings(
    "ignore:'pin_memory' argument is set as true but no accelerator",
)


@pytest.fixture
def trainer(tmp_path):
    """What the page defines, and a function that trains it."""
    if not is_torch_available():
        pytest.skip("the Trainer needs a newer torch")
    names = {"__name__": "page"}
    definitions = BLOCK.search((HOW_TO / "use_with_hugging_face_trainer.md").read_text())
    exec(definitions.group(1), names)  # noqa: S102
    x = torch.randn(64, 4)
    columns = {"x": x, "depth": 5 * x[:, 0], "normals": x[:, 1]}
    data = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def train(resume=None, initialize=False, **options):
        torch.manual_seed(0)
        args = TrainingArguments(
            output_dir=tmp_path,
            learning_rate=0.1,
            max_steps=8,
            save_steps=4,
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            **options,
        )
        module = names["ModelWithLoss"]()
        if initialize:
            predictions = module(x)
            module.loss_fn.initialize_from(
                predictions, {task: columns[task] for task in predictions}
            )
        run = names["MultiTaskTrainer"](model=module, args=args, train_dataset=data)
        run.train(resume_from_checkpoint=resume)
        return run, torch.cat([p.detach() for p in module.loss_fn.parameters()])

    return SimpleNamespace(train=train, folder=tmp_path)


def test_hugging_face_resumes_in_the_middle_with_the_same_sigmas(trainer):
    _, expected = trainer.train()
    middle = trainer.folder / "checkpoint-4"
    saved = load_file(middle / "model.safetensors")
    assert saved["loss_fn.heads.depth.num_batches_tracked"] == 1
    assert saved["loss_fn.heads.depth.log_var"] != expected[0]
    _, resumed = trainer.train(resume=str(middle))
    torch.testing.assert_close(resumed, expected, rtol=0, atol=0)


def test_hugging_face_accumulates_gradients_without_changing_sigma(trainer):
    # The first batch would set the sigmas, and of the parts that is the first part.
    _, expected = trainer.train(per_device_train_batch_size=8, initialize=True)
    parts = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    _, accumulated = trainer.train(initialize=True, **parts)
    torch.testing.assert_close(accumulated, expected, rtol=1e-5, atol=1e-6)


def test_hugging_face_decays_the_network_and_no_sigma(trainer):
    run, _ = trainer.train(weight_decay=0.1)
    run.model.loss_fn.check_optimizer(run.optimizer)
    decay = {
        id(p): group["weight_decay"]
        for group in run.optimizer.param_groups
        for p in group["params"]
    }
    assert decay[id(run.model.model.weight)] == 0.1


def test_accelerate_in_bfloat16_leaves_log_var_and_total_in_float32(accelerator_of):
    accelerator = accelerator_of(mixed_precision="bf16")
    model = nn.Linear(4, 1)
    loss_fn = UncertaintyWeightedLoss({"depth": LaplaceHead(init_sigma=1.0)})
    optimizer = torch.optim.SGD([*model.parameters(), *loss_fn.parameters()], lr=0.1)
    model, loss_fn, optimizer = accelerator.prepare(model, loss_fn, optimizer)
    x = torch.randn(8, 4)
    losses = loss_fn({"depth": model(x)}, {"depth": 3 * torch.ones(8, 1)})
    found = [losses.total, losses.tasks["depth"], losses.errors["depth"], loss_fn["depth"].log_var]
    assert all(tensor.dtype == torch.float32 for tensor in found)
    accelerator.backward(losses.total)
    optimizer.step()
    assert loss_fn.sigmas()["depth"] > 1


def test_accelerate_learns_one_sigma_on_two_processes(tmp_path):
    code = code_of(HOW_TO / "use_with_accelerate.md") + (
        "import json, pathlib\n"
        "rank = accelerator.process_index\n"
        "assert accelerator.num_processes == 2\n"
        "values = {task: sigma.item() for task, sigma in sigmas.items()}\n"
        "pathlib.Path(f'{rank}.json').write_text(json.dumps(values))\n"
        "accelerator.end_training()\n"
    )
    # `cpu=True`: two processes on the GPU of one machine would not do.
    code = code.replace("Accelerator(", "Accelerator(cpu=True, ")
    run_on_two_processes(code, tmp_path)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second


class Towers(nn.Module):
    """A trunk, and one output and one sigma per task; task ``b`` in large units."""

    def __init__(self, sigma_of_b=1.0):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(4, 8), nn.Tanh())
        self.a, self.b = nn.Linear(8, 1), nn.Linear(8, 1)
        heads = {"a": LaplaceHead(init_sigma=1.0), "b": LaplaceHead(init_sigma=sigma_of_b)}
        self.loss_fn = UncertaintyWeightedLoss(heads)
        self.x, self.y = torch.randn(16, 4), torch.randn(16, 1)

    def losses(self, absent=None):
        """Return the features and the losses."""
        features = self.trunk(self.x)
        targets = {"a": self.y, "b": 100 * self.y.flip(0)}
        targets = {task: None if task == absent else y for task, y in targets.items()}
        return features, self.loss_fn({"a": self.a(features), "b": self.b(features)}, targets)


def trunk_gradient(towers, aggregator, absent=None):
    features, losses = towers.losses(absent)
    # The loss weighs all tasks as one vector, so their terms share a part of the graph.
    mtl_backward(list(losses.tasks.values()), features=features, retain_graph=True)
    jac_to_grad(towers.trunk.parameters(), aggregator)
    return torch.cat([p.grad.flatten() for p in towers.trunk.parameters()])


def test_torchjd_gives_sigma_the_gradient_of_its_own_likelihood():
    towers, plain = Towers(), Towers()
    trunk_gradient(towers, UPGrad())
    plain.losses()[1].total.backward()
    for name in ("loss_fn", "a", "b"):
        ours, expected = getattr(towers, name).parameters(), getattr(plain, name).parameters()
        for p, q in zip(ours, expected, strict=True):
            torch.testing.assert_close(p.grad, q.grad)


def test_torchjd_takes_a_task_without_labels_as_a_row_of_zeros():
    towers = Towers()
    gradient = trunk_gradient(towers, UPGrad(), absent="b")
    assert towers.loss_fn["b"].log_var.grad == 0
    alone = torch.autograd.grad(towers.losses("b")[1].total, list(towers.trunk.parameters()))
    # UPGrad is a mean over tasks, so half of the sum's gradient.
    torch.testing.assert_close(gradient, torch.cat([g.flatten() for g in alone]) / 2)


@pytest.mark.parametrize(
    ("aggregator", "follows"),
    [
        (UPGrad(), True),
        (MGDA(), True),
        (PCGrad(), True),
        (IMTLG(), False),
        (ConFIG(), False),
    ],
    ids=["UPGrad", "MGDA", "PCGrad", "IMTLG", "ConFIG"],
)
def test_torchjd_aggregators_that_rescale_rows_undo_the_weights(aggregator, follows):
    gradients = [trunk_gradient(Towers(sigma), aggregator) for sigma in (1.0, 10.0)]
    cosine = nn.functional.cosine_similarity(*gradients, dim=0)
    assert (cosine < 0.99) == follows
    assert follows or cosine > 0.9999


def test_torchmetrics_and_the_loss_agree_on_the_valid_elements():
    loss_fn = UncertaintyWeightedLoss({"depth": "laplace"})
    prediction, target, mask = torch.randn(9), torch.randn(9), torch.arange(9) % 3 > 0
    losses = loss_fn({"depth": prediction}, {"depth": target}, {"depth": mask})
    metric = MeanAbsoluteError()
    metric.update(prediction[mask], target[mask])
    torch.testing.assert_close(losses.errors["depth"], metric.compute())
