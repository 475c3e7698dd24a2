"""Filters of admin lists over a column of free text: the choices come from code.

Django's own filter asks the database for them, with a SELECT DISTINCT over the whole table at every page.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib.admin import SimpleListFilter
from django.db.models import QuerySet
from django.http import HttpRequest


class OfferedFilter(SimpleListFilter):
    """Rows whose column, named by `parameter_name`, has the chosen value; a value that is not offered has no row."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        chosen = self.value()
        if not chosen:
            return queryset
        is_offered = any(chosen == value for value, _ in self.lookup_choices)
        return queryset.filter(**{str(self.parameter_name): chosen}) if is_offered else queryset.none()


def choice_filter(column: str, choices: Iterable[str]) -> type[SimpleListFilter]:
    """A filter for `list_filter`: rows whose `column` is the chosen one."""
    offered = [(choice, choice) for choice in choices]

    class ChoiceFilter(OfferedFilter):
        title = column.replace("_", " ")
        parameter_name = column

        def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
            return offered

    return ChoiceFilter
