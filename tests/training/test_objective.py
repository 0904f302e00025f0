"""The loss of an adaptation's step, by the plain definitions."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from dsclora import zoo
from dsclora.engines import Setting
from dsclora.engines.choice import open_engine
from dsclora.networks import span_torch
from dsclora.pictures.pairs import find_pairs
from dsclora.pictures.resize import imresize
from dsclora.training import convlora, losses
from dsclora.training.objective import Objective
from dsclora.training.patches import open_store
from dsclora.training.teacher import enlarge_to_scale
from helpers import photo, random_model, save
from helpers_training import recipe


def test_the_terms_of_the_loss(pictures: Path, tmp_path: Path) -> None:
    """L_rec, L_TS and L_AD by the plain definitions, with a teacher of another width."""
    base, teacher = random_model(2, 6), random_model(2, 8, seed=1)
    r = recipe(hr_weight=0.5, teacher_weight=2.0, affinity_weight=3.0, affinity={"rows": 0})
    store = open_store(find_pairs(pictures, 2), 2, tmp_path / "store")
    net = convlora.attach(span_torch.from_network(base), [convlora.Target(x.convs, x.rank, x.alpha) for x in r.lora])
    taps = convlora.sconvlbs(net)
    terms = Objective(r, store, None, span_torch.from_network(teacher), taps).terms(net, r.stages[0], 3)
    batch = store.batch(r.seed, 3, 4, 16)
    lr, hr = span_torch.to_tensor(batch.lr), span_torch.to_tensor(batch.hr)
    student, other = span_torch.from_network(base), span_torch.from_network(teacher)
    assert terms["rec"].item() == pytest.approx(0.5 * (student(lr) - hr).abs().mean().item(), rel=1e-5)
    assert terms["ts"].item() == pytest.approx(2 * (student(lr) - other(lr)).abs().mean().item(), rel=1e-5)

    def outputs_of(n: span_torch.Span) -> list[torch.Tensor]:
        x, outputs = n.conv_1((lr - n.mean) * n.range), []
        for tap in taps:
            x, _ = n.get_submodule(tap)(x)
            outputs.append(x)
        return outputs

    expected = sum(
        losses.spatial_affinity(a, b).item() for a, b in zip(outputs_of(student), outputs_of(other), strict=True)
    )
    assert terms["ad"].item() == pytest.approx(3 * expected, rel=1e-5)
    assert taps == [f"block_{n}" for n in range(1, 7)]
    few = recipe(affinity_weight=3.0, affinity={"rows": 64})
    estimate = Objective(few, store, None, span_torch.from_network(teacher), taps).terms(net, few.stages[0], 3)["ad"]
    assert estimate.item() == pytest.approx(3 * expected, rel=0.2)
    assert estimate.item() != pytest.approx(3 * expected, rel=1e-6)
    enlarged = Objective(few, store).rows(torch.zeros(1, 3, 64, 64), 3)
    assert enlarged is not None
    assert enlarged.max() > 3000, "of a tap that is larger than LR, all of it"


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_cached_and_live_teachers_agree(pictures: Path, tmp_path: Path, scale: int) -> None:
    """What the teacher makes of a whole picture and of a patch of it differs near the patch's edges alone."""
    base, teacher = random_model(2, 6), random_model(scale, 8, seed=1)
    r = recipe(teacher_weight=1.0)
    net = convlora.attach(span_torch.from_network(base))
    cached = open_store(find_pairs(pictures, 2), 2, tmp_path / "store")
    live = Objective(r, cached, None, span_torch.from_network(teacher)).terms(net, r.stages[0], 0)["ts"].item()
    cached.add_teacher("t", partial(enlarge_to_scale, open_engine(teacher, Setting(threads=1)), 2))
    assert Objective(r, cached).terms(net, r.stages[0], 0)["ts"].item() == pytest.approx(live, rel=0.3)


def test_a_live_teacher_of_a_larger_scale_is_reduced_as_by_matlab(tmp_path: Path) -> None:
    net, teacher = (span_torch.from_network(zoo.load(name)) for name in ("span-x2", "span-x4"))
    save(tmp_path / "HR" / "noise.png", np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    store = open_store(find_pairs(tmp_path / "HR", 2), 2, tmp_path / "store")
    r = recipe(teacher_weight=1.0)
    live = Objective(r, store, None, teacher).terms(net, r.stages[0], 0)["ts"].item()
    lr = store.batch(r.seed, 0, r.stages[0].batch, r.stages[0].patch // 2).lr
    targets = np.stack([imresize(span_torch.uint8_function(teacher)(x.transpose(1, 2, 0)), 0.5) for x in lr]) / 255
    expected = np.abs(net(span_torch.to_tensor(lr)).detach().permute(0, 2, 3, 1).numpy() - targets).mean()
    assert live == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("cached", [False, True])
def test_what_distillation_looks_at_beside_a_guard(pictures: Path, tmp_path: Path, cached: bool) -> None:
    """The guard's patches alone, or all of the batch with `teach_own`; by the plain definition."""
    base, teacher = span_torch.from_network(random_model(2, 6)), span_torch.from_network(random_model(2, 8, seed=1))
    for n in range(8):
        save(tmp_path / "odd" / f"o{n}x.png", photo(64, 64, seed=50 + n))
    subject = open_store(find_pairs(tmp_path / "odd", 2), 2, tmp_path / "own")
    guard = open_store(find_pairs(pictures, 2), 2, tmp_path / "guard")
    if cached:
        for store in (subject, guard):
            store.add_teacher("t", span_torch.uint8_function(teacher))
    batches = [subject.batch(0, 3, 2, 16), guard.batch(1, 3, 2, 16)]
    for teach_own, visible in ((False, batches[1:]), (True, batches)):
        r = recipe(teacher_weight=2.0, teach_own=teach_own)
        terms = Objective(r, subject, guard, None if cached else teacher).terms(base, r.stages[0], 3)
        lr = span_torch.to_tensor(np.concatenate([b.lr for b in visible]))
        kept = [b.teacher for b in visible if b.teacher is not None]
        target = span_torch.to_tensor(np.concatenate(kept)) if cached else teacher(lr)
        assert terms["guard"].item() == pytest.approx(2 * (base(lr) - target).abs().mean().item(), rel=1e-5)
        assert set(terms) == {"rec", "guard"}


def test_a_stage_without_a_teacher_weight_is_not_taught_its_own_pictures(pictures: Path, tmp_path: Path) -> None:
    """The guard's patches keep their target with the originals' weight, those to adapt to have only the original."""
    base, teacher = span_torch.from_network(random_model(2, 6)), span_torch.from_network(random_model(2, 8, seed=1))
    store = open_store(find_pairs(pictures, 2), 2, tmp_path / "store")
    r = recipe(teacher_weight=0.0, teach_own=True, hr_weight=0.5)
    terms = Objective(r, store, store, teacher).terms(base, r.stages[0], 3)
    lr = span_torch.to_tensor(store.batch(1, 3, 2, 16).lr)
    assert terms["guard"].item() == pytest.approx(0.5 * (base(lr) - teacher(lr)).abs().mean().item(), rel=1e-5)
