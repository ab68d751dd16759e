"""A jinja2 environment for untrusted templates, which bounds the work of a template.

jinja2's immutable sandbox keeps a template away from Python, but it does not bound the work: a few characters of
template can loop for hours or ask for terabytes. So this module adds two rules:

- A template may use only the statements, filters, tests and methods listed below; everything else is refused by name.
  The cost of each is at most the size of its arguments and its result.
- Everything that loops, calls, joins, compares or writes is paid for from one :class:`Budget`, and paid *before* it is
  done if the result can be larger than the arguments. There is no clock: the same template and messages always cost the
  same.
"""

import json
from collections.abc import Callable, ItemsView, Iterable, KeysView, Mapping, ValuesView
from functools import wraps
from types import BuiltinMethodType, MethodType
from typing import ParamSpec

from jinja2 import TemplateError, nodes, pass_context
from jinja2.ext import loopcontrols
from jinja2.filters import FILTERS as ALL_FILTERS
from jinja2.runtime import Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS as ALL_TESTS
from jinja2.utils import Cycler, Joiner, Namespace

from .budget import MAX_DEPTH, MAX_NUMBER_BITS, Budget, BudgetError
from .meter import BUILT, CHARGED, CONCATENATED, LITERAL, STEPS, WRITTEN, GenerationTag, Meter

P = ParamSpec("P")

MAX_INDENT = 32
MAX_NODES = 10_000  # of a parsed template; none of a hundred real ones has more than 500

STATEMENTS = frozenset(
    "Add And Assign AssignBlock Break Call CallBlock Compare Concat CondExpr Const Continue Dict Div Filter"
    " FilterBlock FloorDiv For Getattr Getitem If Keyword List Macro Mod Mul NSRef Name Neg Not Operand Or Output Pair"
    " Pos Pow Slice Sub Template TemplateData Test Tuple With".split()
)
FILTERS = frozenset(
    "abs capitalize count d default dictsort first float int items last length list lower map max min reject"
    " rejectattr reverse round select selectattr sort title trim unique upper".split()
)
TESTS = frozenset(ALL_TESTS) - {"escaped", "filter", "test"}
METHODS: Mapping[type, frozenset[str]] = {
    str: frozenset(
        "capitalize count endswith find index isalnum isalpha isdecimal isdigit islower isnumeric isspace istitle"
        " isupper join lower lstrip partition removeprefix removesuffix replace rfind rindex rpartition rsplit rstrip"
        " split splitlines startswith strip title upper".split()
    ),
    dict: frozenset({"get", "items", "keys", "values"}),
    list: frozenset({"count", "index"}),
    tuple: frozenset({"count", "index"}),
}
FREE = frozenset({"length", "count", "first", "last", "default", "d"})  # filters that look at one item only
DEEP = frozenset({"dictsort", "max", "min", "sort", "unique"})  # filters that compare items with each other


def text_of(value: object) -> str:
    """Return `value` as a template writes it. Raises TemplateError if it has no plain text."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool | int | float | Undefined):
        return str(value)
    raise TemplateError(f"it writes a {type(value).__name__}; only texts and numbers can be written")


class Sandbox(ImmutableSandboxedEnvironment):
    """An environment for one rendering, which may spend `budget`.

    The template may call `functions` by name, and jinja2's own range, dict, namespace, cycler and joiner.
    """

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})

    def __init__(self, budget: Budget, functions: Mapping[str, object]) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[loopcontrols, GenerationTag],
            optimized=False,  # otherwise constant expressions would be computed during compilation
            cache_size=0,
        )
        self.budget = budget
        classes = {"dict": dict, "namespace": Namespace, "cycler": Cycler, "joiner": Joiner}
        self.globals = {**functions, **classes, "range": self.globals["range"]}
        self._callable = tuple(self.globals.values())
        self.filters = {name: self._paid(name, ALL_FILTERS[name]) for name in FILTERS}
        self.tests = {name: self._paid(name, ALL_TESTS[name]) for name in TESTS}  # type: ignore[arg-type]
        self._add_own_filters()

    def prepare(self, source: str) -> nodes.Template:
        """Return the parsed template, in which every operation pays. Raises TemplateError."""
        parsed = self.parse(source)
        for count, node in enumerate(parsed.find_all(nodes.Node)):
            kind = type(node).__name__
            if kind not in STATEMENTS:
                raise TemplateError(f"it has a statement of the kind {kind}, which is not supported")
            if count == MAX_NODES:
                raise TemplateError(f"it has more than {MAX_NODES} operations")
            if isinstance(node, nodes.For) and node.recursive:
                raise TemplateError("it has a recursive loop, which is not supported")
        metered = Meter().visit(parsed)
        assert isinstance(metered, nodes.Template)
        return metered

    def call(self, context: Context, obj: object, /, *args: object, **kwargs: object) -> object:
        self.budget.read(*args, *kwargs.values())
        if isinstance(obj, BuiltinMethodType):
            self._check_method(obj)
            return self.budget.keep(self._call_method(context, obj, *args, **kwargs))
        if not self._may_call(obj):
            name = getattr(obj, "__name__", type(obj).__name__)
            raise TemplateError(f"it calls {name}, which is not supported")
        return self.budget.keep(super().call(context, obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: object, right: object) -> object:
        if operator == "%" and isinstance(left, str):
            raise TemplateError("it formats a text with %, which is not supported")
        if operator == "*":
            for text, times in ((left, right), (right, left)):
                if isinstance(text, str | list | tuple) and isinstance(times, int):
                    self.budget.spend(len(text) * max(times, 0))
        if operator == "**" and not _is_small_power(left, right):
            raise BudgetError(f"it computes with numbers of more than {MAX_NUMBER_BITS} bits")
        self.budget.read(left, right)
        return self.budget.keep(super().call_binop(context, operator, left, right))

    def getattr(self, obj: object, attribute: str) -> object:
        self.budget.spend()
        return super().getattr(obj, attribute)

    def getitem(self, obj: object, argument: object) -> object:
        self.budget.spend()
        return super().getitem(obj, argument)

    def _may_call(self, obj: object) -> bool:
        if isinstance(obj, MethodType):
            return isinstance(obj.__self__, LoopContext | Cycler)
        return isinstance(obj, Macro | Joiner | Undefined) or any(obj is known for known in self._callable)

    def _check_method(self, method: BuiltinMethodType) -> None:
        owner = method.__self__
        if method.__name__ not in METHODS.get(type(owner), frozenset()):
            raise TemplateError(f"it calls {type(owner).__name__}.{method.__name__}, which is not supported")
        self.budget.read(owner)

    def _call_method(self, context: Context, method: BuiltinMethodType, *args: object, **kwargs: object) -> object:
        owner, name = method.__self__, method.__name__
        if isinstance(owner, str) and name == "join" and len(args) == 1:
            return self._join(args[0], owner)
        if isinstance(owner, str) and name == "replace" and len(args) in (2, 3):
            return self._replace(owner, *args)
        if isinstance(owner, list | tuple):
            self.budget.read_deep(owner)
        result: object = super().call(context, method, *args, **kwargs)
        return list(result) if isinstance(result, ItemsView | KeysView | ValuesView) else result

    def _paid(self, name: str, function: Callable[P, object]) -> Callable[P, object]:
        """Return the filter or test `function` with payment; a context or environment is free."""

        @wraps(function)
        def paid(*args: P.args, **kwargs: P.kwargs) -> object:
            if name in FREE:
                self.budget.spend()
                return function(*args, **kwargs)
            values = [value for value in (*args, *kwargs.values()) if not isinstance(value, Context | Sandbox)]
            self.budget.read(*values)
            for value in values if name in DEEP or name in TESTS else ():
                self.budget.read_deep(value)
            return self.budget.keep(function(*args, **kwargs))

        return paid

    def _add_own_filters(self) -> None:
        """Add filters with results much larger than their arguments, and those for operators."""
        self.filters["e"] = self.filters["escape"] = self._escape
        self.filters["indent"] = self._indent
        self.filters["join"] = self._join
        self.filters["replace"] = self._replace
        self.filters["safe"] = self.filters["string"] = text_of  # nothing is escaped automatically
        self.filters["tojson"] = self._tojson
        self.filters[BUILT] = self.budget.keep
        self.filters[CHARGED] = self._charged
        self.filters[CONCATENATED] = self._join
        self.filters[LITERAL] = self._literal
        self.filters[STEPS] = self.budget.steps
        self.filters[WRITTEN] = self._written

    def _escape(self, value: object) -> str:
        text = text_of(value)
        self.budget.spend(6 * len(text))
        for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&#34;"), ("'", "&#39;")):
            text = text.replace(character, entity)
        return text

    def _indent(self, value: object, width: object = 4, first: object = False, blank: object = False) -> str:
        text = text_of(value)
        if isinstance(width, bool) or not isinstance(width, int) or not 0 <= width <= MAX_INDENT:
            raise TemplateError(f"it indents by a width that is not a number up to {MAX_INDENT}")
        self.budget.spend((1 + width) * len(text))
        space = " " * width
        lines = [space + line if blank or line else line for line in (text + "\n").splitlines()]
        return "\n".join(lines) if first or not lines else "\n".join(lines)[len(space) if lines[0] else 0 :]

    def _join(self, values: object, separator: object = "") -> str:
        if not isinstance(values, Iterable):
            raise TemplateError(f"it joins a {type(values).__name__}")
        between, texts = text_of(separator), [text_of(value) for value in self.budget.steps(values)]
        self.budget.spend(len(between) * len(texts) + sum(map(len, texts)))
        return between.join(texts)

    def _replace(self, value: object, old: object, new: object, count: object = None) -> str:
        text, old, new = text_of(value), text_of(old), text_of(new)
        found = text.count(old)
        self.budget.spend(len(text) + found * len(new))
        return text.replace(old, new, count if isinstance(count, int) else -1)

    def _tojson(self, value: object, ensure_ascii: bool = False, indent: object = None, sort_keys: bool = False) -> str:
        """Return `value` as JSON; like transformers, this escapes nothing for HTML."""
        if indent is not None and (not isinstance(indent, int) or not 0 <= indent <= MAX_INDENT):
            raise TemplateError(f"it indents by a width that is not a number up to {MAX_INDENT}")
        self.budget.spend(self.budget.read_deep(value) * (6 + MAX_DEPTH * (indent or 0)))
        return json.dumps(value, ensure_ascii=bool(ensure_ascii), indent=indent, sort_keys=bool(sort_keys))

    def _charged(self, value: object) -> object:
        self.budget.read_deep(value)
        return value

    # Outputs of constants are computed while compiling, once and for all, unless their filter wants the context.
    @pass_context
    def _literal(self, _: Context, length: int) -> str:
        self.budget.spend(length)
        return ""

    @pass_context
    def _written(self, _: Context, value: object) -> str:
        text = text_of(value)
        self.budget.spend(len(text))
        return text


def _is_small_power(base: object, exponent: object) -> bool:
    if isinstance(base, float) or isinstance(exponent, float):
        return True  # a float has a fixed size
    if not isinstance(base, int) or not isinstance(exponent, int):
        return False
    return base.bit_length() * abs(exponent) <= MAX_NUMBER_BITS
