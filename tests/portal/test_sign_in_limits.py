"""Guessing passwords: five tries per account, ten per address, however the account or the site is spelled."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from deployments.models import SignInTries, User
from deployments.services import tries
from tests.deployments import factories as make

pytestmark = pytest.mark.django_db
PASSWORD = "long and unheard of"


@pytest.fixture(autouse=True)
def quick(settings: Any) -> None:
    """Passwords are compared at once: there are hundreds of tries here."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def mia() -> User:
    user = make.make_user("mia")
    user.set_password(PASSWORD)
    user.save()
    return user


@pytest.fixture
def addresses() -> Iterator[str]:
    return (f"192.0.2.{number}" for number in count(1))


def attempt(name: str, password: str, *, address: str, host: str = "127.0.0.1") -> str:
    """In, wrong or too many: what the page of signing in says."""
    answer = Client(REMOTE_ADDR=address, headers={"host": host}).post(
        reverse("account_login"), {"login": name, "password": password}
    )
    if answer.status_code == 302:
        return "in"
    return "too many" if "Too many failed login attempts" in answer.content.decode() else "wrong"


def test_five_wrong_passwords_close_an_account_for_a_while(mia: User, addresses: Iterator[str]) -> None:
    said = [attempt("mia", f"wrong {number}", address=next(addresses)) for number in range(6)]

    assert said == ["wrong"] * 5 + ["too many"]
    assert attempt("mia", PASSWORD, address=next(addresses)) == "too many"
    SignInTries.objects.update(began_at=timezone.now() - timedelta(minutes=5))
    assert attempt("mia", PASSWORD, address=next(addresses)) == "in"


@pytest.mark.parametrize("name", ["mia", "MIA", "m\u0131a"])
def test_neither_another_port_or_host_nor_another_spelling_opens_it(
    mia: User, addresses: Iterator[str], name: str
) -> None:
    for number in range(5):
        attempt("mia", "wrong", address=next(addresses), host=f"127.0.0.1:{5000 + number}")

    for host in ("127.0.0.1", "127.0.0.1:4999", "localhost"):
        assert attempt(name, PASSWORD, address=next(addresses), host=host) == "too many"


def test_ten_names_from_one_address_close_it_and_no_other(mia: User) -> None:
    said = [attempt(f"nobody{number}", "wrong", address="192.0.2.7") for number in range(11)]

    assert said == ["wrong"] * 10 + ["too many"]
    assert attempt("mia", PASSWORD, address="192.0.2.7") == "too many"
    assert attempt("mia", PASSWORD, address="192.0.2.8") == "in"


def test_good_sign_ins_count_for_nothing_and_hide_no_wrong_ones(mia: User, addresses: Iterator[str]) -> None:
    for _ in range(4):
        assert attempt("mia", "wrong", address=next(addresses)) == "wrong"
        assert attempt("mia", PASSWORD, address=next(addresses)) == "in"

    assert attempt("mia", "wrong", address=next(addresses)) == "wrong"
    assert attempt("mia", "wrong", address=next(addresses)) == "too many"


def test_others_tries_move_no_count_and_no_name_is_kept(mia: User, addresses: Iterator[str]) -> None:
    attempt("mia", "wrong", address=next(addresses))
    before = set(SignInTries.objects.values_list("key", "tries"))
    for number in range(30):
        tries.take(tries.limits_of(f"nobody{number}", ""))

    assert before <= set(SignInTries.objects.values_list("key", "tries"))
    assert all(len(key) == 64 for key, _ in SignInTries.objects.values_list("key", "tries"))


def test_old_counts_are_forgotten() -> None:
    tries.take(tries.limits_of("old", ""))
    SignInTries.objects.update(began_at=timezone.now() - timedelta(days=1, seconds=1))
    tries.take(tries.limits_of("new", ""))

    assert (tries.forget_old(), SignInTries.objects.count()) == (1, 1)


@pytest.mark.django_db(transaction=True)
def test_of_many_tries_at_once_five_count() -> None:
    good: list[bool] = []

    def one() -> None:
        try:
            good.append(tries.take(tries.limits_of("mia", "")))
        finally:
            connection.close()

    threads = [threading.Thread(target=one) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(good) == [False] * 19 + [True] * 5
    assert SignInTries.objects.get().tries == 24
