"""No text that a person or a cluster gives can leave its place in a query."""

import promql_parser
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.lib.promql import Query, Selector


def matcher_value(query: Query) -> str:
    parsed = promql_parser.parse(str(query))
    return parsed.matchers.matchers[0].value


@given(st.text())
def test_a_value_comes_back_as_it_was_given(text: str) -> None:
    query = Query.metric("up", Selector.equal(pod=text))

    assert matcher_value(query) == text


@given(st.lists(st.text(min_size=1), min_size=1, max_size=4))
def test_alternatives_stay_one_matcher(texts: list[str]) -> None:
    parsed = promql_parser.parse(str(Query.metric("up", Selector.one_of("pod", texts))))

    assert len(parsed.matchers.matchers) == 1


def test_a_closing_brace_in_a_name_does_not_end_the_selector() -> None:
    query = Query.metric("up", Selector.equal(namespace='a"} or vector(1) or up{x="'))

    assert matcher_value(query) == 'a"} or vector(1) or up{x="'


def test_a_label_name_from_elsewhere_is_refused() -> None:
    with pytest.raises(ValueError, match="not a label name"):
        Selector.equal(**{'a="b", c': "d"})


def test_no_alternatives_match_nothing() -> None:
    assert "$none^" in Selector.one_of("namespace", []).text
