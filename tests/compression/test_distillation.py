from __future__ import annotations

import copy
from collections import namedtuple
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from raydistill.compression import CompressionScheduler
from raydistill.compression.distillation import KnowledgeDistillationPolicy, distillation_loss
from raydistill.compression.masks import MaskSet
from raydistill.compression.policies import Step
from raydistill.errors import ConfigError

STUDENT = [[2.0, -1.0, 0.5], [0.0, 0.0, 3.0]]
TEACHER = [[1.0, 1.0, -2.0], [4.0, 0.0, 1.0]]


def by_hand(student: Any, teacher: Any, temperature: float) -> float:
    """Row by row: T^2 times the sum of p log(p / q), p of the teacher and q of the student."""
    total = 0.0
    for s, t in zip(np.asarray(student, dtype=float), np.asarray(teacher, dtype=float), strict=True):
        p = np.exp(t / temperature) / np.exp(t / temperature).sum()
        q = np.exp(s / temperature) / np.exp(s / temperature).sum()
        total += sum(p[i] * np.log(p[i] / q[i]) for i in range(len(p)))
    return temperature**2 * total / len(student)


class Pair(nn.Module):
    """Two layers with dropout and batch norm, so that the two modes differ."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, classes))

    def forward(self, x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        return self.body(x * scale)


@pytest.fixture
def pair() -> tuple[Pair, Pair]:
    torch.manual_seed(0)
    return Pair(), Pair()


def step(policy: KnowledgeDistillationPolicy, student: nn.Module, inputs: torch.Tensor, **kwargs: Any) -> torch.Tensor:
    """One minibatch up to the loss; the labels are all 0."""
    policy.on_minibatch_begin(Step(0, 0, 1))
    output = student(inputs, **kwargs)
    return policy.before_backward(Step(0, 0, 1), functional.cross_entropy(output, torch.zeros(len(inputs)).long()))


@pytest.mark.parametrize("temperature", [1.0, 4.0, 0.5])
def test_the_loss_is_the_papers(temperature: float) -> None:
    value = distillation_loss(torch.tensor(STUDENT), torch.tensor(TEACHER), temperature)
    assert float(value) == pytest.approx(by_hand(STUDENT, TEACHER, temperature), rel=1e-5)
    assert float(distillation_loss(torch.tensor(TEACHER), torch.tensor(TEACHER), temperature)) == pytest.approx(0)
    # logits of a sequence, (tokens, batch, classes), count as that many rows
    stacked = distillation_loss(torch.tensor([STUDENT, TEACHER]), torch.tensor([TEACHER, TEACHER]), temperature)
    assert float(stacked) == pytest.approx(float(value) / 2, rel=1e-5)


def test_a_hot_teacher_pulls_logits_together_as_section_2_1_of_the_paper_says() -> None:
    student = torch.tensor(STUDENT, requires_grad=True)
    teacher = torch.tensor(TEACHER)
    distillation_loss(student, teacher, 1e3).backward()
    # zero-meaned logits, T large: the gradient is (student - teacher) / classes, and / batch for the mean
    expected = (student - student.mean(1, keepdim=True) - teacher + teacher.mean(1, keepdim=True)) / 3 / 2
    assert student.grad is not None
    assert torch.allclose(student.grad, expected, atol=2e-3)


def test_half_of_the_loss_is_the_teachers_where_nothing_is_said(pair: tuple[Pair, Pair]) -> None:
    student, teacher = (each.eval() for each in pair)
    inputs = torch.randn(5, 4)
    labels = torch.zeros(5).long()
    policy = KnowledgeDistillationPolicy(student, teacher)
    policy.on_epoch_begin(None)  # type: ignore[arg-type]
    found = float(step(policy, student, inputs))
    with torch.no_grad():
        own = float(functional.cross_entropy(student(inputs), labels))
        taught = by_hand(student(inputs).tolist(), teacher(inputs).tolist(), 1.0)
    assert found == pytest.approx(0.5 * own + 0.5 * taught, rel=1e-4)


def test_the_student_learns_from_the_teacher_and_the_teacher_stays(pair: tuple[Pair, Pair]) -> None:
    student, teacher = pair
    before = copy.deepcopy(teacher.state_dict())
    policy = KnowledgeDistillationPolicy(student, teacher, temperature=2.0, distill_wt=0.7, student_wt=0.3)
    policy.on_epoch_begin(None)  # type: ignore[arg-type]
    assert not teacher.training
    inputs = torch.randn(6, 4)
    torch.manual_seed(1)
    loss = step(policy, student, inputs)
    loss.backward()
    torch.manual_seed(1)
    twin = copy.deepcopy(student)
    output = twin(inputs)
    expected = 0.3 * float(functional.cross_entropy(output, torch.zeros(6).long()).detach())
    expected += 0.7 * by_hand(output.detach(), teacher(inputs).detach(), 2.0)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    assert all(parameter.grad is not None for parameter in student.parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


@pytest.mark.slow
def test_distillation_alone_makes_a_student_of_the_teacher(pair: tuple[Pair, Pair]) -> None:
    student, teacher = pair
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9)
    policy = KnowledgeDistillationPolicy(student, teacher, temperature=3.0, distill_wt=1.0, student_wt=0.0)
    scheduler = CompressionScheduler(student, [], MaskSet(student))
    scheduler.add(policy, 0, 3)
    inputs = torch.randn(64, 4)
    losses = []
    for epoch in range(3):
        scheduler.on_epoch_begin(epoch)
        for index in range(40):
            scheduler.on_minibatch_begin(epoch, index, 40)
            loss = functional.cross_entropy(student(inputs), torch.zeros(64).long())
            loss = scheduler.before_backward(epoch, index, 40, loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.on_minibatch_end(epoch, index, 40)
            losses.append(float(loss.detach()))
        scheduler.on_epoch_end(epoch)
    assert losses[-1] < 0.2 * losses[0]
    assert scheduler.state_dict()["policies"] == [{}]


def test_outside_its_epochs_it_does_nothing(pair: tuple[Pair, Pair]) -> None:
    student, teacher = pair
    scheduler = CompressionScheduler(student, [], MaskSet(student))
    scheduler.add(KnowledgeDistillationPolicy(student, teacher), 1, 2)
    calls: list[int] = []
    teacher.register_forward_hook(lambda *_: calls.append(1))
    for epoch in range(3):
        scheduler.on_epoch_begin(epoch)
        scheduler.on_minibatch_begin(epoch, 0, 1)
        student(torch.randn(3, 4))
        loss = scheduler.before_backward(epoch, 0, 1, torch.tensor(1.0))
        assert (float(loss.detach()) == 1.0) is (epoch != 1)
        scheduler.on_epoch_end(epoch)
    assert calls == [1]
    assert not student._forward_hooks


def test_an_evaluation_in_between_is_not_distilled(pair: tuple[Pair, Pair]) -> None:
    student, teacher = pair
    policy = KnowledgeDistillationPolicy(student, teacher, distill_wt=1.0, student_wt=0.0)
    policy.on_epoch_begin(None)  # type: ignore[arg-type]
    calls: list[int] = []
    teacher.register_forward_hook(lambda *_: calls.append(1))
    student.eval()
    inputs, others = torch.randn(4, 4), torch.randn(9, 4)
    alone = float(step(policy, student, inputs).detach())
    policy.on_minibatch_begin(Step(0, 0, 1))
    output = student(inputs)
    with torch.no_grad():
        student(others)
    loss = policy.before_backward(Step(0, 0, 1), functional.cross_entropy(output, torch.zeros(4).long()))
    student(others)  # after the loss nobody watches
    assert float(loss.detach()) == pytest.approx(alone)
    assert calls == [1, 1]


def test_the_teacher_sees_the_same_arguments_memory_format_and_autocast() -> None:
    seen: list[tuple[torch.dtype, bool, float]] = []

    class Spy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 3)

        def forward(self, images: torch.Tensor, *, scale: float) -> torch.Tensor:
            output = self.conv(images * scale)
            seen.append((output.dtype, images.is_contiguous(memory_format=torch.channels_last), scale))
            return output.mean((2, 3))

    student, teacher = Spy(), Spy()
    policy = KnowledgeDistillationPolicy(student, teacher)
    images = torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last)
    policy.on_minibatch_begin(Step(0, 0, 1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = functional.cross_entropy(student(images, scale=0.5), torch.zeros(2).long())
    loss = policy.before_backward(Step(0, 0, 1), loss)
    assert seen == [(torch.bfloat16, True, 0.5)] * 2
    assert loss.dtype == torch.float32
    loss.backward()
    assert student.conv.weight.grad is not None


def test_models_that_answer_with_more_than_logits(pair: tuple[Pair, Pair]) -> None:
    Output = namedtuple("Output", ["logits", "aux_logits"])

    class Named(Pair):
        def forward(self, x: torch.Tensor, scale: float = 1.0) -> Any:
            logits = super().forward(x, scale)
            return Output(logits, logits * 0)

    student, (_, teacher) = Named(), pair
    policy = KnowledgeDistillationPolicy(student, teacher, distill_wt=1.0, student_wt=0.0)
    policy.on_minibatch_begin(Step(0, 0, 1))
    output = student(torch.randn(4, 4))
    first = policy.before_backward(Step(0, 0, 1), output.logits.sum())
    picked = KnowledgeDistillationPolicy(student, student_copy := Named(), 1.0, 1.0, 0.0, logits=lambda o: o[1])
    picked.on_minibatch_begin(Step(0, 0, 1))
    second = picked.before_backward(Step(0, 0, 1), student(torch.randn(4, 4)).logits.sum())
    assert float(first.detach()) > 0
    assert float(second.detach()) == 0
    assert student_copy.training


@pytest.mark.slow
@pytest.mark.parametrize("way", ["wrapper", "in place"])
def test_a_compiled_student(pair: tuple[Pair, Pair], way: str) -> None:
    student, teacher = pair
    student.eval()  # no dropout: two runs agree
    inputs = torch.randn(4, 4)
    expected = float(step(KnowledgeDistillationPolicy(student, teacher.eval()), student, inputs).detach())
    called: Any = student
    if way == "wrapper":
        called = torch.compile(student, backend="eager")
    else:
        student.compile(backend="eager")
    policy = KnowledgeDistillationPolicy(called, teacher)
    for _ in range(2):
        assert float(step(policy, called, inputs).detach()) == pytest.approx(expected)
    torch._dynamo.reset()


@pytest.mark.slow
def test_a_distributed_student(pair: tuple[Pair, Pair], tmp_path: Any) -> None:
    student, teacher = pair
    student.eval()
    inputs = torch.randn(4, 4)
    expected = float(step(KnowledgeDistillationPolicy(student, teacher.eval()), student, inputs).detach())
    store = f"file://{tmp_path}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(student)
        for handed in (wrapped, student):  # the inner module runs too
            loss = step(KnowledgeDistillationPolicy(handed, teacher), wrapped, inputs)
            assert float(loss.detach()) == pytest.approx(expected)
            loss.backward()
    finally:
        torch.distributed.destroy_process_group()


def test_a_student_that_was_not_run_is_said_so(pair: tuple[Pair, Pair]) -> None:
    student, teacher = pair
    policy = KnowledgeDistillationPolicy(student, teacher)
    with pytest.raises(ConfigError, match="was not run in this minibatch; hand it the module that the loop calls"):
        step(policy, copy.deepcopy(student), torch.randn(4, 4))
    assert not student._forward_hooks


def test_a_teacher_of_other_classes_is_refused(pair: tuple[Pair, Pair]) -> None:
    policy = KnowledgeDistillationPolicy(pair[0], Pair(classes=5))
    with pytest.raises(ConfigError, match=r"teacher: must give outputs of the student's shape \(4, 3\), got \(4, 5\)"):
        step(policy, pair[0], torch.randn(4, 4))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"temperature": 0}, "distillation.temperature: must be a number above 0, got 0"),
        ({"temperature": True}, "distillation.temperature: must be a number above 0"),
        ({"distill_wt": -0.1}, "distillation.distill_wt: must be a number from 0 up"),
        ({"student_wt": float("nan")}, "distillation.student_wt: must be a number from 0 up"),
        ({"teacher_wt": 0.1}, "distillation.teacher_wt: must be 0: the teacher is not trained"),
    ],
)
def test_values_that_cannot_be(pair: tuple[Pair, Pair], arguments: dict, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        KnowledgeDistillationPolicy(*pair, **arguments)
    assert says in str(caught.value)


def test_the_student_cannot_teach_itself(pair: tuple[Pair, Pair]) -> None:
    with pytest.raises(ConfigError, match="is the student itself; give a copy of it"):
        KnowledgeDistillationPolicy(pair[0], pair[0])
