import json

import pytest
import tvm
from tuning_kernels import conv2d, softmax

from wgtune.database.tvm.graph_json import load_json


@pytest.mark.parametrize("kernel", [conv2d(), softmax()], ids=["conv2d", "softmax"])
def test_text_of_this_tvm_is_read_without_an_update(kernel, monkeypatch):
    text = tvm.ir.save_json(kernel.func)
    expected = tvm.ir.save_json(tvm.ir.load_json(text))
    monkeypatch.setattr(tvm.ir, "load_json", None)
    assert tvm.ir.save_json(load_json(text)) == expected


def test_text_of_another_tvm_is_brought_up_to_date():
    graph = json.loads(tvm.ir.save_json(conv2d().func))
    graph["metadata"]["tvm_version"] = "0.26.0"
    for node in graph["nodes"]:
        if node["type"] == "ir.prim.Add":
            node["type"] = "tirx.Add"  # its name until 0.26
    func = load_json(json.dumps(graph, separators=(",", ":")))
    assert tvm.ir.save_json(func) == tvm.ir.save_json(tvm.ir.load_json(tvm.ir.save_json(conv2d().func)))


@pytest.mark.parametrize("damage", [lambda text: text[:-40], lambda text: "{" + text, lambda text: ""])
def test_damaged_text_raises(damage):
    with pytest.raises(Exception, match=r"."):
        load_json(damage(tvm.ir.save_json(conv2d().func)))
