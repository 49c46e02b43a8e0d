"""The retry budget, held against a naive count of every request with its second."""

from hypothesis import given
from hypothesis import strategies as st

from router.budget import LEAST, WINDOW, Budget


class Told(Budget):
    """A budget, and the requests that its owner counts."""

    requests = 0

    def ask(self) -> None:
        self.requests += 1

    def retry(self) -> bool:
        """Send one to a second node, if it may go."""
        may = self.is_open(self.requests)
        self.spent += may
        self.requests += may
        return may

    def second(self) -> None:
        self.next_second(self.requests)


def test_where_little_is_asked_every_request_may_go_twice() -> None:
    budget = Told(20)
    for _ in range(LEAST * WINDOW):
        budget.ask()
        assert budget.retry()


def test_an_overload_is_never_doubled() -> None:
    """Each request fails and would go twice, for longer than the window."""
    budget, first, again = Told(20), 0, 0
    for _ in range(3 * WINDOW):
        for _ in range(1000):
            budget.ask()
            first += 1
            again += budget.retry()
        budget.second()
    assert first * 0.19 <= again <= first * 0.2 + 4 * LEAST * WINDOW


def test_a_spent_budget_comes_back_when_the_window_has_moved_on() -> None:
    budget = Told(20)
    while budget.retry():
        pass
    for _ in range(WINDOW - 1):
        budget.second()
        assert not budget.retry()
    budget.second()
    assert budget.retry()


def test_0_percent_is_no_limit() -> None:
    budget = Told(0)
    assert all(budget.retry() for _ in range(10 * LEAST * WINDOW))


@given(st.integers(1, 100), st.lists(st.sampled_from(["ask", "retry", "second"]), max_size=400))
def test_a_window_holds_its_share(percent: int, events: list[str]) -> None:
    budget = Told(percent)
    first: list[int] = []  # the second of each
    again: list[int] = []
    second = 0
    for event in events:
        if event == "ask":
            for _ in range(20):
                budget.ask()
                first.append(second)
        elif event == "second":
            second += 1
            budget.second()
        else:
            recent = sum(at > second - WINDOW for at in first)
            allowed = LEAST * WINDOW + recent * percent // 100
            may = sum(at > second - WINDOW for at in again) < allowed
            assert budget.retry() == may
            again += [second] * may
