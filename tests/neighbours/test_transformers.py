"""A `PreTrainedModel` that holds the loss: saved, loaded, and trained by the `Trainer`."""

import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BertConfig, BertModel, PreTrainedModel, Trainer, TrainingArguments
from transformers.utils import is_torch_available

from uncertainty_mtl import ScaledSoftmaxHead, UncertaintyWeightedLoss

pytestmark = [
    pytest.mark.skipif(not is_torch_available(), reason="transformers needs a newer torch"),
    # On a machine without an accelerator.
    pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true but no accelerator"),
]

CLASS_WEIGHT = [1.0, 2.0, 4.0]

both_estimators = pytest.mark.parametrize("estimator", ["learned", "closed_form"])


class TwoTasks(PreTrainedModel):
    """A small BERT with a linear layer for a regression and a classification."""

    config_class = BertConfig
    base_model_prefix = "bert"

    def __init__(self, config):
        super().__init__(config)
        self.bert = BertModel(config, add_pooling_layer=False)
        self.outputs = nn.Linear(config.hidden_size, 1 + len(CLASS_WEIGHT))
        heads = {"depth": "laplace", "semantic": ScaledSoftmaxHead(class_weight=CLASS_WEIGHT)}
        self.loss_fn = UncertaintyWeightedLoss(heads, estimator=config.estimator)
        self.post_init()

    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, UncertaintyWeightedLoss):
            module.reset_parameters()

    def predict(self, input_ids):
        """Return the prediction of each task."""
        outputs = self.outputs(self.bert(input_ids).last_hidden_state.mean(1))
        return {"depth": outputs[:, 0], "semantic": outputs[:, 1:]}

    def forward(self, input_ids, depth, semantic):
        """Return the total loss, as the `Trainer` wants it, and all of the losses."""
        losses = self.loss_fn(self.predict(input_ids), {"depth": depth, "semantic": semantic})
        return {"loss": losses.total, "losses": losses}


class WithoutLoss(PreTrainedModel):
    """What somebody else has trained: the same BERT, and no loss."""

    config_class = BertConfig

    def __init__(self, config):
        super().__init__(config)
        self.bert = BertModel(config, add_pooling_layer=False)
        self.post_init()


class SigmaTrainer(Trainer):
    """Trains the sigmas at their own learning rate."""

    def create_optimizer(self, *args, **kwargs):
        """Return the usual optimizer, with the sigmas in a group of their own."""
        if self.optimizer is None:
            optimizer = super().create_optimizer(*args, **kwargs)
            loss_fn = self.model.loss_fn
            sigmas = {id(parameter) for parameter in loss_fn.parameters()}
            for group in optimizer.param_groups:
                group["params"] = [p for p in group["params"] if id(p) not in sigmas]
            for group in loss_fn.param_groups():
                optimizer.add_param_group(group)
        return self.optimizer


def config_of(estimator="learned"):
    return BertConfig(
        vocab_size=32,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=8,
        attn_implementation="eager",
        estimator=estimator,
    )


def batch(size=16, scale=100.0):
    return {
        "input_ids": torch.randint(32, (size, 6)),
        "depth": scale * torch.randn(size),
        "semantic": torch.randint(3, (size,)),
    }


def trained(estimator):
    """Return a model whose sigmas have started and moved away from their start."""
    model = TwoTasks(config_of(estimator)).train()
    groups = [{"params": model.bert.parameters()}, *model.loss_fn.param_groups(lr=0.05)]
    optimizer = torch.optim.Adam(groups, lr=1e-3)
    for _ in range(3):
        model(**batch())["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def loaded(folder, **options):
    """Load a checkpoint; what nobody initialises is nan, so that no test passes by luck."""
    torch.use_deterministic_algorithms(True)
    try:
        return TwoTasks.from_pretrained(folder, **options)
    finally:
        torch.use_deterministic_algorithms(False)


def weights_times_errors(model, losses):
    weights = model.loss_fn.weights()
    return {task: (weights[task] * error).item() for task, error in losses.errors.items()}


@both_estimators
def test_a_checkpoint_brings_back_sigmas_counts_and_class_weights(estimator, tmp_path):
    model = trained(estimator)
    model.save_pretrained(tmp_path)
    found = loaded(tmp_path)
    state, expected = found.loss_fn.state_dict(), model.loss_fn.state_dict()
    assert "heads.depth.num_batches_tracked" in expected
    assert expected["heads.depth.num_batches_tracked"] > 0
    torch.testing.assert_close(state, expected, rtol=0, atol=0)
    assert found.loss_fn.sigmas() == model.loss_fn.sigmas()
    assert found.loss_fn["semantic"].class_weight.tolist() == CLASS_WEIGHT


@both_estimators
def test_sigmas_of_a_checkpoint_do_not_start_again(estimator, tmp_path):
    trained(estimator).save_pretrained(tmp_path)
    found = loaded(tmp_path).train()
    before = found.loss_fn.sigmas()["depth"].item()
    losses = found(**batch(scale=1e5))["losses"]
    # A learned sigma waits for the optimizer; a running mean takes a tenth of the new batch.
    mean = before / math.sqrt(2)
    error = losses.errors["depth"].item()
    moved = mean if estimator == "learned" else 0.9 * mean + 0.1 * error
    assert found.loss_fn.sigmas()["depth"].item() == pytest.approx(math.sqrt(2) * moved, rel=1e-4)


@both_estimators
def test_a_checkpoint_without_a_loss_leaves_the_start_to_the_first_batch(estimator, tmp_path):
    other = WithoutLoss(config_of(estimator))
    other.save_pretrained(tmp_path)
    model = loaded(tmp_path).train()
    embeddings = [m.bert.embeddings.word_embeddings.weight for m in (model, other)]
    torch.testing.assert_close(*embeddings, rtol=0, atol=0)
    assert all(sigma == 1 for sigma in model.loss_fn.sigmas().values())
    assert model.loss_fn["semantic"].class_weight.tolist() == CLASS_WEIGHT
    model.outputs.reset_parameters()
    output = model(**batch())
    assert weights_times_errors(model, output["losses"]) == pytest.approx(
        {"depth": 1.0, "semantic": 0.5}, rel=1e-4
    )
    output["loss"].backward()
    assert all(p.grad.isfinite().all() for p in model.outputs.parameters())


@both_estimators
def test_sigmas_of_a_checkpoint_without_counts_have_started(estimator, tmp_path):
    model = trained(estimator)
    model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    old = {k: v for k, v in load_file(path).items() if not k.endswith("num_batches_tracked")}
    save_file(old, path, metadata={"format": "pt"})
    found = loaded(tmp_path).train()
    expected = {task: sigma.item() for task, sigma in model.loss_fn.sigmas().items()}
    sigmas = {task: sigma.item() for task, sigma in found.loss_fn.sigmas().items()}
    assert sigmas == expected
    assert all(found.loss_fn[task].num_batches_tracked == 1 for task in expected)
    found(**batch(scale=1e5))
    # A start would have taken all of the new error, which is a thousand times as large.
    assert found.loss_fn.sigmas()["depth"].item() < 200 * expected["depth"]


@both_estimators
def test_the_state_of_the_loss_stays_float32_in_a_bfloat16_model(estimator, tmp_path):
    model = trained(estimator)
    model.save_pretrained(tmp_path)
    found = loaded(tmp_path, dtype=torch.bfloat16).train()
    assert found.outputs.weight.dtype == torch.bfloat16
    torch.testing.assert_close(  # dtypes are compared, too
        found.loss_fn.state_dict(), model.loss_fn.state_dict(), rtol=0, atol=0
    )
    assert found.loss_fn["semantic"].class_weight.tolist() == CLASS_WEIGHT
    output = found(**batch())
    assert output["loss"].dtype == torch.float32
    output["loss"].backward()
    assert found.loss_fn["depth"].log_var.grad.dtype == torch.float32


class Samples(torch.utils.data.Dataset):
    """Rows of one batch."""

    def __init__(self, size):
        self.columns = batch(size)

    def __len__(self):
        return len(self.columns["depth"])

    def __getitem__(self, i):
        return {name: column[i] for name, column in self.columns.items()}


def test_the_trainer_weighs_tasks_by_their_losses_at_its_default_learning_rate(tmp_path):
    data = Samples(256)
    args = TrainingArguments(
        output_dir=tmp_path,
        num_train_epochs=3,
        weight_decay=0.1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    model = TwoTasks(config_of())
    trainer = SigmaTrainer(model=model, args=args, train_dataset=data)
    model.loss_fn.check_optimizer(trainer.create_optimizer())
    trainer.train()
    with torch.no_grad():
        prediction = model.eval().predict(data.columns["input_ids"])
    depth, semantic = data.columns["depth"], data.columns["semantic"]
    weight = torch.tensor(CLASS_WEIGHT)
    losses = {
        "depth": (prediction["depth"] - depth).abs().mean().item(),
        "semantic": nn.functional.cross_entropy(prediction["semantic"], semantic, weight).item(),
    }
    weights = {task: w.item() for task, w in model.loss_fn.weights().items()}
    assert weights["depth"] == pytest.approx(1 / losses["depth"], rel=1 / 3)
    assert weights["semantic"] == pytest.approx(0.5 / losses["semantic"], rel=1 / 3)
