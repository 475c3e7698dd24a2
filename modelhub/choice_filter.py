"""Filters of admin lists over a column of free text: the choices come from code.

Django's own filter asks the database for them, with a SELECT DISTINCT over the whole table at every page.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib.admin import SimpleListFilter
from django.db.models import QuerySet
from django.http import HttpRequest


def choice_filter(column: str, choices: Iterable[str]) -> type[SimpleListFilter]:
    """A filter for `list_filter`: rows whose `column` is the chosen one."""
    offered = [(choice, choice) for choice in choices]

    class ChoiceFilter(SimpleListFilter):
        title = column.replace("_", " ")
        parameter_name = column

        def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
            return offered

        def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
            return queryset.filter(**{column: self.value()}) if self.value() else queryset

    return ChoiceFilter
