import os

import pytest
import torch

from graphclust.training.checkpoint import (
    optimizer_tensors,
    read_checkpoint,
    restore_optimizer,
    write_checkpoint,
)

META = {"stage": 1, "epoch": 3, "history": [{"loss": 0.1 + 0.2}], "fingerprint": {"widths": [4, 2]}}


def tensors():
    generator = torch.Generator().manual_seed(0)
    return {
        "model.weight": torch.randn(4, 3, generator=generator),
        "memory.labels": torch.arange(5),
        "labels": torch.arange(5, dtype=torch.int32),
        "model.step": torch.tensor(7),
    }


def test_round_trip_is_exact(tmp_path):
    folder = tmp_path / "deep" / "run"
    write_checkpoint(folder, tensors(), META)
    found, meta = read_checkpoint(folder)
    assert {k: v for k, v in meta.items() if k != "format_version"} == META
    assert found.keys() == tensors().keys()
    assert all(torch.equal(found[k], v) and found[k].dtype == v.dtype for k, v in tensors().items())


def test_views_and_tied_weights_are_stored(tmp_path):
    weight = torch.arange(12.0).reshape(3, 4)
    given = {
        "a": weight,
        "b": weight,
        "c": weight.T,
        "d": weight[1:],
        "e": torch.empty(0),
        "f": torch.empty(0),
    }
    write_checkpoint(tmp_path, given, META)
    found = read_checkpoint(tmp_path)[0]
    assert all(torch.equal(found[k], v) for k, v in given.items())


def test_no_checkpoint_is_none_and_an_empty_folder_too(tmp_path):
    assert read_checkpoint(tmp_path / "absent") is None
    assert read_checkpoint(tmp_path) is None


def test_other_files_in_the_folder_stay(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    for _ in range(2):
        write_checkpoint(tmp_path, tensors(), META)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.safetensors", "thesis.txt"]


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.99])
def test_truncated_file_is_refused_and_remains(tmp_path, keep):
    write_checkpoint(tmp_path, tensors(), META)
    path = tmp_path / "checkpoint.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    left = path.read_bytes()
    with pytest.raises(ValueError, match="checkpoint.safetensors cannot be read .*delete it to start anew"):
        read_checkpoint(tmp_path)
    assert path.read_bytes() == left


def test_foreign_safetensors_file_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, tmp_path / "checkpoint.safetensors")
    with pytest.raises(ValueError, match="cannot be read"):
        read_checkpoint(tmp_path)


def test_other_version_is_refused(tmp_path):
    write_checkpoint(tmp_path, tensors(), META | {"format_version": 99})
    with pytest.raises(ValueError, match="format version 99, this graphclust reads version 1"):
        read_checkpoint(tmp_path)
    assert (tmp_path / "checkpoint.safetensors").exists()


def test_killed_while_writing_leaves_the_old_one(tmp_path, monkeypatch):
    write_checkpoint(tmp_path, tensors(), META)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            write_checkpoint(tmp_path, tensors(), META | {"epoch": 4})
    assert read_checkpoint(tmp_path)[1]["epoch"] == 3
    write_checkpoint(tmp_path, tensors(), META | {"epoch": 5})
    assert read_checkpoint(tmp_path)[1]["epoch"] == 5


@pytest.mark.parametrize("fused", [False, True])
def test_optimizer_goes_on_where_it_was(tmp_path, fused):
    def problem():
        weight = torch.nn.Parameter(torch.ones(3))
        unused = torch.nn.Parameter(torch.ones(2))  # without a gradient it has no state
        return [weight, unused], torch.optim.AdamW([weight, unused], 0.1, fused=fused)

    def step(parameters, optimizer, times):
        for _ in range(times):
            optimizer.zero_grad()
            (parameters[0] * torch.tensor([1.0, -2.0, 3.0])).square().sum().backward()
            optimizer.step()

    whole, whole_optimizer = problem()
    step(whole, whole_optimizer, 7)
    first, first_optimizer = problem()
    step(first, first_optimizer, 3)
    write_checkpoint(tmp_path, optimizer_tensors(first_optimizer), META)

    second, second_optimizer = problem()
    second[0].data.copy_(first[0].data)
    restore_optimizer(second_optimizer, read_checkpoint(tmp_path)[0])
    step(second, second_optimizer, 4)
    assert torch.equal(second[0], whole[0])
    fresh, fresh_optimizer = problem()
    fresh[0].data.copy_(first[0].data)
    step(fresh, fresh_optimizer, 4)
    assert not torch.equal(fresh[0], whole[0])  # the moments matter


def test_changed_content_is_named(tmp_path):
    write_checkpoint(tmp_path, tensors(), META)
    path = tmp_path / "checkpoint.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1  # one bit of a number
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match="another checksum than when it was written.*delete it to start anew"
    ):
        read_checkpoint(tmp_path)
    assert path.read_bytes() == content  # left for whoever can mend it


def test_a_full_disk_leaves_the_older_checkpoint(tmp_path, with_file_limit):
    write_checkpoint(tmp_path, tensors(), META)
    code = f"""
import torch
from graphclust.training.checkpoint import write_checkpoint
limit()
try:
    write_checkpoint({str(tmp_path)!r}, {{"a": torch.zeros(1 << 20)}}, {{}})
except OSError as error:
    print("refused", error)
"""
    printed = with_file_limit(code, 1 << 20)
    assert "refused" in printed and "no room for the checkpoint" in printed
    found, _ = read_checkpoint(tmp_path)
    assert found.keys() == tensors().keys()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]
