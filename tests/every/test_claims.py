"""Every claim of the repository, and every statement of the text."""

import ast
from pathlib import Path

import pytest

from layerlab.claims import grammar
from layerlab.claims.claim import names, read, statements
from layerlab.claims.run import check


@pytest.mark.parametrize("name", names())
def test_every_claim_composes_and_its_arms_differ_in_nothing_but_what_they_say(name):
    claim = read(name)
    check(claim)
    assert claim.concludes
    assert len(claim.units) >= 3
    assert claim.plot


def test_every_statement_of_the_text_has_a_claim_a_test_or_a_reason():
    tests = Path(__file__).parents[1]
    there = {
        f"{file.relative_to(tests)}::{node.name}"
        for file in tests.rglob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    for s in statements():
        assert set(s) in ({"line", "says", kind} for kind in ("claim", "test", "opinion")), s
        assert s.get("test") is None or s["test"] in there, s
    told = {s["claim"] for s in statements() if "claim" in s}
    assert told <= set(names())
    lines = [s["line"] for s in statements()]
    assert lines == sorted(lines)
    assert set(names()) == told


@pytest.mark.parametrize("name", names())
def test_a_claim_is_held_against_a_number_and_against_its_control(name):
    """Its effect against a number; and either against another place of the axes, or its control is elsewhere."""
    claim = read(name)
    trees = {kind: [grammar.parse(c.text) for c in claim.checks[kind]] for kind in ("expect", "control")}
    sides = [side for tree in trees["expect"] for side in (tree.left, *tree.comparators)]
    assert any(isinstance(side, ast.Constant | ast.UnaryOp) for side in sides)
    effect, control = ([places(tree) for tree in trees[kind]] for kind in ("expect", "control"))
    assert any(len(found) > 1 for found in effect) or set().union(*control) - set().union(*effect)


def places(tree):
    """What a check reads: metrics at a place of their axes, or metrics."""
    chosen = {ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Call) and n.keywords}
    return chosen or {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
