"""Changes a parsed template so that every operation of it goes through a filter of the sandbox, which counts it."""

from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.visitor import NodeTransformer

# Names of our own filters, which replace operators; a template cannot write a name with a space in it.
BUILT, CHARGED, CONCATENATED, LITERAL, STEPS, WRITTEN = "a built", "b read", "c concat", "d text", "e steps", "f out"


class GenerationTag(Extension):
    """{% generation %}...{% endgeneration %} marks answers for training; no effect here."""

    tags = {"generation"}  # noqa: RUF012  (an attribute of jinja2's)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Meter(NodeTransformer):
    """Puts our filters around the operations that jinja2 does without calling the sandbox."""

    def visit_Output(self, node: nodes.Output) -> nodes.Node:  # noqa: N802
        literal = sum(len(child.data) for child in node.nodes if isinstance(child, nodes.TemplateData))
        self.generic_visit(node)
        written = [c if isinstance(c, nodes.TemplateData) else _filtered(c, WRITTEN) for c in node.nodes]
        node.nodes = [_filtered(nodes.Const(literal), LITERAL), *written]
        return node

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.iter = _filtered(node.iter, STEPS)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), CONCATENATED)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.expr = _filtered(node.expr, CHARGED)
        for operand in node.ops:
            operand.expr = _filtered(operand.expr, CHARGED)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filtered(node, BUILT) if isinstance(node.arg, nodes.Slice) else node

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filtered(node, BUILT)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filtered(node, BUILT) if node.ctx == "load" else node

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filtered(node, BUILT)


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    assert isinstance(node, nodes.Expr)
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno or 1)
