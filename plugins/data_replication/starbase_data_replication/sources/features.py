"""The features that a dialect declares: what it does not declare is not asked of it, nor assumed.

Must not know a field of `configure`, or which dialects exist.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum


class Feature(StrEnum):
    """What a dialect can do, besides loading a whole table and following a tracking column."""

    # `ReadPlan.schema.where`: reads, counts, watermarks and comparisons take only rows for which it is true.
    WHERE = "where"
    # `ReadPlan.left_filter`: rows for which `where` is no longer true come too, each with one more value.
    LEFT_FILTER = "left_filter"
    # `ReadPlan.keys`: a read gives the rows with given keys.
    KEYS = "keys"
    # A read shows one moment of the table, and `Snapshots.snapshot` shows several tables at one moment.
    SNAPSHOT = "snapshot"
    # `Comparable.comparing`: source and replica are compared by checksums.
    COMPARE = "compare"
    # `ReadPlan.in_key_order` and `after_key`: a load comes in the order of the key and goes on behind a `last_key`.
    RESUME = "resume"


EVERY_FEATURE = frozenset(Feature)
# What the host needs to know of a row that it has copied before it can use a feature.
NEEDS = {
    Feature.LEFT_FILTER: (Feature.WHERE, Feature.KEYS),
    Feature.COMPARE: (Feature.KEYS,),
    Feature.RESUME: (Feature.KEYS,),
}


@dataclass(frozen=True, kw_only=True)
class RegisteredDialect:
    """What the host knows of a dialect without calling it.

    Attributes:
        label: what messages call it: `the dialect csv of plugin files`.
        features: what it declares.
        foreign: whether it is another plugin's.
    """

    label: str
    features: frozenset[Feature] = EVERY_FEATURE
    foreign: bool = False


class WrongFeatures(Exception):
    """A dialect declares no features, or wrong ones; the text is a predicate."""


def checked_features(declared: object) -> frozenset[Feature]:
    """The features that a dialect declares.

    Raises WrongFeatures if they are no collection of features, or if one lacks what it needs.
    """
    known = ", ".join(Feature)
    if isinstance(declared, str) or not isinstance(declared, Collection):
        raise WrongFeatures(f"declares no features; set features = frozenset({{…}}), of these: {known}")
    if unknown := [str(each) for each in declared if not isinstance(each, str) or each not in set(Feature)]:
        raise WrongFeatures(f"declares the feature {unknown[0]}, which does not exist; known: {known}")
    features = frozenset(map(Feature, declared))
    for feature in sorted(features):
        if missing := [each for each in NEEDS.get(feature, ()) if each not in features]:
            raise WrongFeatures(f"declares the feature {feature} without {missing[0]}, which it needs; declare both")
    return features
