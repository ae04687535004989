"""Replay memory: episodes of equal length that many runs keep, and steps that are drawn from them.

Row r of every array is run r, whose draws are made by its own generator: no run depends on the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.random import Generator

from bilevelrl.reference.arrays import FloatArray, IntArray
from bilevelrl.reference.errors import InvalidInputError, refusal

__all__ = ["Draws", "EpisodeMemory", "truncated_discount"]


def truncated_discount(discount: float, steps: int) -> float:
    """Return Σ_{t<T} discount^t, by which draws that follow the discount divide the hypergradient.

    Examples
    --------
    >>> truncated_discount(0.5, 3)
    1.75
    """
    return float(np.sum(discount ** np.arange(steps)))


@dataclass(slots=True, kw_only=True)
class EpisodeMemory:
    """The last episodes of some runs, or all that there were.

    Attributes
    ----------
    capacity : int or None
        How many episodes are kept at most; None: those of the last `add` alone.
    filled : int
        How many there are.
    kept : {name: (R, capacity, ...)}
        Filled from the front.

    Examples
    --------
    >>> memory = EpisodeMemory(capacity=4)
    >>> memory.add(state_t=np.zeros((1, 2, 5)))
    >>> memory.add(state_t=np.ones((1, 2, 5)))
    >>> memory["state_t"][0, :, 0]
    array([0., 0., 1., 1.])
    """

    capacity: int | None = None
    filled: int = 0
    kept: dict[str, Any] = field(default_factory=dict)

    def add(self, **episodes: Any) -> None:
        """Keep episodes (R, streams, ...) by name.

        Raises
        ------
        InvalidInputError
            If there is no room for them.
        """
        streams = int(next(iter(episodes.values())).shape[1])
        if self.capacity is None:
            self.kept, self.filled = episodes, streams
            return
        after = self.filled + streams
        if after > self.capacity:
            raise InvalidInputError(refusal("episodes", after, f"at most {self.capacity}", "raise the capacity"))
        for name, array in episodes.items():
            if name not in self.kept:
                self.kept[name] = np.zeros((array.shape[0], self.capacity, *array.shape[2:]), dtype=array.dtype)
            self.kept[name][:, self.filled : after] = array
        self.filled = after

    def __getitem__(self, name: str) -> Any:
        """Return what there is, (R, filled, ...)."""
        return self.kept[name][:, : self.filled]

    def arrays(self) -> dict[str, Any]:
        """Return what `restore` needs: nothing where an outer iteration forgets the one before."""
        return {} if self.capacity is None else {name: self[name] for name in self.kept}

    def restore(self, arrays: Mapping[str, Any]) -> None:
        """Continue from what `arrays` returned."""
        self.filled, self.kept = 0, {}
        if arrays:
            self.add(**arrays)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """Which steps of kept episodes are used, and how much each counts.

    Attributes
    ----------
    episode, time, weight : (R, B), or (R, minibatches, B)
        Weights sum to one over the last axis.
    """

    episode: IntArray
    time: IntArray
    weight: FloatArray

    @classmethod
    def of(
        cls,
        law: FloatArray,
        episodes: int,
        uniforms: FloatArray,
        *,
        times: FloatArray | None = None,
        once: Sequence[Generator] | None = None,
    ) -> Self:
        """Turn uniform numbers in [0, 1) into draws: episodes equally likely, times by their law.

        Parameters
        ----------
        law : (steps,)
            Cumulative; times are as likely as its increments.
        episodes
            How many there are.
        uniforms, times
            For the episode and for the time, (R, B) or (R, minibatches, B); no `times`: what the first leaves over.
        once
            One generator per run: no step is drawn twice into one minibatch, repeated ones are drawn anew. None: they
            may be.

        Raises
        ------
        InvalidInputError
            If there are fewer steps than a minibatch needs to hold each once.

        Examples
        --------
        >>> draws = Draws.of(np.array([1.0, 1.5]), 2, np.array([[0.1, 0.6, 0.9]]))
        >>> draws.episode.tolist(), draws.time.tolist()
        ([[0, 1, 1]], [[0, 0, 1]])
        """
        steps, cumulative = law.size, law / law[-1]

        def places(given: FloatArray, of_time: FloatArray | None) -> IntArray:
            scaled = given * episodes
            episode = np.minimum(scaled.astype(np.int64), episodes - 1)
            left = scaled - episode if of_time is None else of_time
            found: IntArray = episode * steps + np.minimum(np.searchsorted(cumulative, left, side="right"), steps - 1)
            return found

        found = places(uniforms, times)
        if once is not None:
            size = uniforms.shape[-1]
            if size > episodes * steps:
                raise InvalidInputError(
                    refusal("minibatch", size, f"at most {episodes * steps} without replacement", "take a smaller one")
                )
            ordered = np.sort(found, axis=-1)
            for index in np.argwhere((ordered[..., 1:] == ordered[..., :-1]).any(axis=-1)):
                own = found[tuple(index)]
                while (again := np.setdiff1d(np.arange(size), np.unique(own, return_index=True)[1])).size:
                    own[again] = places(once[int(index[0])].random(again.size), None)
        episode, time = np.divmod(found, steps)
        return cls(episode=episode, time=time, weight=np.full(found.shape, 1.0 / found.shape[-1]))

    @classmethod
    def discounted(cls, discount: float, episodes: int, steps: int, uniforms: FloatArray) -> Self:
        """Turn uniform numbers (R, B, 2) into draws with probability proportional to discount^t.

        Examples
        --------
        >>> draws = Draws.discounted(0.5, 4, 100, np.full((1, 3, 2), 0.4))
        >>> draws.episode[0, 0].item(), draws.time[0, 0].item()
        (1, 0)
        """
        law = np.cumsum(discount ** np.arange(steps))
        return cls.of(law, episodes, uniforms[..., 0], times=uniforms[..., 1])

    @classmethod
    def every(cls, discount: float, runs: int, episodes: int, steps: int) -> Self:
        """Use every step once, with weight proportional to discount^t."""
        episode, time = (grid.ravel() for grid in np.meshgrid(np.arange(episodes), np.arange(steps), indexing="ij"))
        weight = discount**time / (episodes * truncated_discount(discount, steps))
        shape = (runs, episode.size)
        return cls(
            episode=np.broadcast_to(episode, shape),
            time=np.broadcast_to(time, shape),
            weight=np.broadcast_to(weight, shape),
        )

    def minibatches(self) -> list[Self]:
        """Return draws (R, minibatches, B) one minibatch after the other, (R, B) each."""
        return [self._each((slice(None), place)) for place in range(self.time.shape[1])]

    def of_runs(self, rows: IntArray) -> Self:
        """Return the draws of some runs."""
        return self._each(rows)

    def _each(self, chosen: Any) -> Self:
        return replace(self, episode=self.episode[chosen], time=self.time[chosen], weight=self.weight[chosen])

    def taken(self, episodes: Any) -> Any:
        """Return what episodes (R, episodes, steps) hold at the draws, (R, B)."""
        return episodes[np.arange(len(episodes))[:, None], self.episode, self.time]

    def summed(self, values: FloatArray, episodes: int, steps: int) -> FloatArray:
        """Return Σ values over the draws of each step, (R, episodes, steps), of values (R, B).

        Examples
        --------
        >>> draws = Draws(episode=np.array([[0, 0]]), time=np.array([[1, 1]]), weight=np.array([[0.5, 0.5]]))
        >>> draws.summed(draws.weight, 1, 3)
        array([[[0., 1., 0.]]])
        """
        runs, number = len(values), episodes * steps
        place = np.arange(runs)[:, None] * number + self.episode * steps + self.time
        total: Any = np.bincount(place.ravel(), weights=np.ravel(values), minlength=runs * number)
        summed: FloatArray = total.reshape(runs, episodes, steps)
        return summed
