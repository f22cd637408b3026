"""A check's function as its source has it: its parameters, and what it can return.

What is wrong is an error when the function becomes a check, so before any model is called.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from tierwise.errors import ConfigError

_REMEDY = (
    "a check returns the reason of a failure as text, or None for a pass; one that judges field "
    "by field returns a mapping of fields to reasons"
)
_ARGUMENTS = (None, None)  # the output and the document
# Expressions that are never a text, a mapping or None.
_NEVER_A_REASON = (
    ast.Compare,
    ast.GeneratorExp,
    ast.Lambda,
    ast.List,
    ast.ListComp,
    ast.Set,
    ast.SetComp,
    ast.Tuple,
)


def step_parameters(
    name: str, function: Callable[..., Any]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the parameters of the step that a check needs, and those that it has defaults for.

    Raises ConfigError for a function that cannot be called with an output and a document.
    """
    needed = []
    optional = []
    signature = inspect.signature(function)
    for parameter in signature.parameters.values():
        if parameter.kind is not parameter.KEYWORD_ONLY:
            continue
        if parameter.default is parameter.empty:
            needed.append(parameter.name)
        else:
            optional.append(parameter.name)
    try:
        signature.bind(*_ARGUMENTS, **dict.fromkeys(needed))
    except TypeError:
        called = getattr(function, "__name__", name)
        raise fault(
            name,
            function,
            f"is {called}({', '.join(_bare(signature))}); "
            f"checks are called as {called}(output, document, *, parameter, …)",
        ) from None
    return tuple(needed), tuple(optional)


def refuse_wrong_returns(name: str, function: Callable[..., Any]) -> None:
    """Raise ConfigError for a function that is sure to return neither reasons nor None.

    Its annotation decides. Without one, `return` statements decide whose kind is plain to see, such
    as `return True`. Everything else is found when the check runs.
    """
    annotation = inspect.signature(function).return_annotation
    if annotation is inspect.Signature.empty:
        for expression in _wrong_returns(function):
            raise fault(name, function, f"has `return {expression}`; {_REMEDY}")
        return
    if not _may_be_reason(_resolved(annotation, function)):
        text = annotation if isinstance(annotation, str) else _type_name(annotation)
        raise fault(name, function, f"is annotated to return {text}; {_REMEDY}")


def wrong_result(name: str, function: Callable[..., Any], result: Any) -> ConfigError:
    """Return the error for a result that is no text, no mapping of texts, and not None.

    Only a number is shown: anything else may quote a document.
    """
    shown = f"a {type(result).__name__}"
    if isinstance(result, bool | int | float):
        shown = repr(result)
    return fault(name, function, f"returned {shown}; {_REMEDY}")


def wrong_field(
    name: str, function: Callable[..., Any], field: str, output_model: type
) -> ConfigError:
    """Return the error for a reason about a field that the output does not have."""
    fields = ", ".join(getattr(output_model, "model_fields", ()))
    return fault(
        name,
        function,
        f"gave a reason for the field {field!r}; {output_model.__name__} has {fields}",
    )


def fault(name: str, function: Callable[..., Any], what: str) -> ConfigError:
    """Return the error for a check at the place of its function."""
    message = f"the check {name} {what}"
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:  # a callable object, or a function in C: it has no place
        return ConfigError(message, path=None, line=None)
    return ConfigError(message, path=code.co_filename, line=code.co_firstlineno)


def _bare(signature: inspect.Signature) -> Iterator[str]:
    """Yield the parameters of a signature without their types."""
    is_keyword_only = False
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not is_keyword_only:
            is_keyword_only = True
            yield "*"
        yield parameter.name


def _resolved(annotation: Any, function: Callable[..., Any]) -> Any:
    """Return an annotation's type; Any for a text that cannot be resolved here."""
    if not isinstance(annotation, str):
        return annotation
    names = getattr(inspect.unwrap(function), "__globals__", {})
    holder = type("_Holder", (), {"__annotations__": {"result": annotation}})
    try:
        return get_type_hints(holder, globalns=names)["result"]
    except Exception:  # noqa: BLE001 - a name for type checkers only, or a project's own object
        return Any


def _may_be_reason(wanted: Any) -> bool:
    """Return False for a type whose values are certainly no reasons, no None, and no await of them."""
    origin = get_origin(wanted)
    arguments = get_args(wanted)
    if origin in (Union, UnionType):
        return all(_may_be_reason(part) for part in arguments)
    if origin is Annotated:
        return _may_be_reason(arguments[0])
    if origin is Literal:
        return all(value is None or isinstance(value, str) for value in arguments)
    if origin in (Awaitable, Coroutine):
        return _may_be_reason(arguments[-1])
    known = wanted if origin is None else origin
    if not isinstance(known, type) or known in (object, Any, NoneType):
        return True
    if issubclass(known, Mapping) and len(arguments) == 2:
        return _may_be_reason(arguments[1])
    return issubclass(known, str | Awaitable | Mapping)


def _type_name(annotation: Any) -> str:
    if isinstance(annotation, type) and not get_args(annotation):
        return annotation.__name__
    return str(annotation)


def _wrong_returns(function: Callable[..., Any]) -> Iterator[str]:
    """Yield the expressions of `return` statements that are never a text, a mapping or None."""
    try:
        source = textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
        [definition] = ast.parse(source).body
    except (OSError, TypeError, ValueError, SyntaxError):
        return  # no source, or a lambda in the middle of a line
    if not isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    for statement in _own_returns(definition):
        if statement.value is not None and _is_never_a_reason(statement.value):
            yield ast.unparse(statement.value)


def _own_returns(node: ast.AST) -> Iterator[ast.Return]:
    """Yield the `return` statements of a function, without those of functions inside it."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Return):
            yield child
        elif not isinstance(
            child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
        ):
            yield from _own_returns(child)


def _is_never_a_reason(expression: ast.expr) -> bool:
    if isinstance(expression, ast.Constant):
        return not isinstance(expression.value, str | NoneType)
    if isinstance(expression, ast.UnaryOp):
        return True  # `not …`, or a number with a sign
    return isinstance(expression, _NEVER_A_REASON)
