"""The island of Talverra as one table of facts, generated from a seed.

Every entity has a kind, a name in two languages and at least five attributes. An
attribute is a number, a pair of words or another entity, so the table is
consistent: a climber was alive in the year of the climb, a bridge crosses a river
that flows past its town.
"""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import product

import vocabulary as v
from vocabulary import Words

SEED = 20261120
# How many stories each kind can choose from: both languages tell the same ones.
STORIES = {"town": 6, "person": 6}
OTHER_STORIES = 5


@dataclass(eq=False)
class Entity:
    """One thing on the island. ``legends`` are (story number, slot values) pairs."""

    kind: str
    name: Words
    facts: dict[str, Value] = field(default_factory=dict)
    woman: bool = False
    legends: list[tuple[int, dict[str, Value]]] = field(default_factory=list)

    def __str__(self) -> str:
        return self.name.en


Value = int | Words | Entity


class World:
    """All entities, by kind, in a fixed order."""

    def __init__(self, seed: int = SEED) -> None:
        self.random = random.Random(seed)
        self.kinds: dict[str, list[Entity]] = defaultdict(list)
        self._make_places()
        self._make_people()
        self._make_works()
        self._make_legends()
        self.entities = [entity for kind in self.kinds.values() for entity in kind]
        self.backlinks: dict[int, list[tuple[Entity, str]]] = defaultdict(list)
        for entity in self.entities:
            for attribute, value in entity.facts.items():
                if isinstance(value, Entity):
                    self.backlinks[id(value)].append((entity, attribute))

    def _add(self, kind: str, name: Words, **facts: Value) -> Entity:
        entity = Entity(kind, name, dict(facts))
        self.kinds[kind].append(entity)
        return entity

    def _names(
        self, first: list[Words], last: list[Words], count: int, form: str, zh: str
    ) -> list[Words]:
        """`count` different names from two word lists, put together as `form` and `zh` say."""
        pairs = self.random.sample(list(product(first, last)), count)
        return [Words(form.format(a.en, b.en), zh.format(a.zh, b.zh)) for a, b in pairs]

    def _year(self, low: int, high: int) -> int:
        return self.random.randint(low, high)

    def _make_places(self) -> None:
        r = self.random
        for name in self._names(v.MOUNTAIN_FIRST, v.MOUNTAIN_LAST, 36, "{} {}", "{}{}"):
            self._add(
                "mountain",
                name,
                region=r.choice(v.REGIONS),
                height=r.randrange(420, 2960, 10),
                rock=r.choice(v.ROCKS),
            )
        town_names = self._names(v.TOWN_STEMS, v.TOWN_ENDINGS, 60, "{}{}", "{}{}")
        towns = [
            self._add(
                "town",
                name,
                region=r.choice(v.REGIONS),
                founded=self._year(1102, 1640),
                population=r.randrange(300, 24000, 10),
                craft=r.choice(v.CRAFTS),
                emblem=r.choice(v.EMBLEMS),
            )
            for name in town_names
        ]
        for i, name in enumerate(v.RIVERS):
            self._add(
                "river",
                name,
                source=r.choice(self.kinds["mountain"]),
                length=r.randrange(12, 240),
                mouth=r.choice(v.MOUTHS),
                character=r.choice(v.CHARACTERS),
                fish=r.choice(v.FISH),
                town=towns[i],
            )
        # The first 36 towns lie on a river each of its own, the rest share.
        for i, town in enumerate(towns):
            rivers = self.kinds["river"]
            town.facts["river"] = rivers[i] if i < len(rivers) else r.choice(rivers)

    def _make_people(self) -> None:
        r = self.random
        given = [(name, True) for name in v.WOMEN] + [(name, False) for name in v.MEN]
        for (first, woman), last in r.sample(list(product(given, v.SURNAMES)), 110):
            born = self._year(1660, 1870)
            person = self._add(
                "person",
                Words(f"{first.en} {last.en}", f"{first.zh}·{last.zh}"),
                profession=v.PROFESSIONS[len(self.kinds["person"]) % len(v.PROFESSIONS)],
                birthplace=r.choice(self.kinds["town"]),
                born=born,
                died=born + r.randint(41, 93),
                pet=r.choice(v.PETS),
            )
            person.woman = woman

    def _person(self, *professions: str) -> Entity:
        people = [p for p in self.kinds["person"] if p.facts["profession"].en in professions]
        return self.random.choice(people)

    def _working_year(self, person: Entity) -> int:
        """A year in which this person was grown up and alive."""
        return self._year(person.facts["born"] + 20, person.facts["died"] - 2)

    def _make_works(self) -> None:
        r = self.random
        towns = self.kinds["town"]
        for mountain in self.kinds["mountain"]:
            climber = self._person("climber", "botanist", "astronomer")
            mountain.facts |= {"climber": climber, "climbed": self._working_year(climber)}
        for word in v.BRIDGES:
            architect, town = self._person("architect", "clockmaker"), r.choice(towns)
            self._add(
                "bridge",
                Words(f"{word.en} Bridge", f"{word.zh}桥"),
                town=town,
                river=town.facts["river"],
                built=self._working_year(architect),
                material=r.choice(v.MATERIALS),
                arches=r.randint(1, 13),
                architect=architect,
            )
        for name in self._names(v.FESTIVAL_FIRST, v.FESTIVAL_LAST, 40, "{} of {}", "{1}{0}"):
            self._add(
                "festival",
                name,
                town=r.choice(towns),
                month=r.choice(v.MONTHS),
                since=self._year(1645, 1890),
                honours=r.choice(v.HONOURS),
            )
        for name in self._names(v.BIRD_FIRST, v.BIRD_LAST, 44, "{} {}", "{}{}"):
            self._add(
                "bird",
                name,
                region=r.choice(v.REGIONS),
                wingspan=r.randint(14, 160),
                food=r.choice(v.FOODS),
                call=r.choice(v.CALLS),
                nest=r.choice(v.NESTS),
                eggs=r.choice(v.EGGS),
            )
        for name in v.INSTRUMENTS:
            maker = self._person("instrument maker", "composer")
            self._add(
                "instrument",
                name,
                inventor=maker,
                year=self._working_year(maker),
                town=r.choice(towns),
                strings=r.randint(2, 30),
                sound=r.choice(v.SOUNDS),
            )
        for name in self._names(v.DISH_FIRST, v.DISH_LAST, 44, "{} {}", "{}{}"):
            self._add(
                "dish",
                name,
                town=r.choice(towns),
                cook=self._person("cook", "smuggler", "judge"),
                secret=r.choice(v.SECRETS),
                season=r.choice(v.SEASONS),
                companion=r.choice(v.COMPANIONS),
            )
        for festival in self.kinds["festival"]:
            festival.facts["dish"] = r.choice(self.kinds["dish"])
        for name in self._names(v.SHIP_FIRST, v.SHIP_LAST, 44, "{} {}", "{}{}号"):
            captain = self._person("sea captain", "smuggler")
            self._add(
                "ship",
                name,
                type=r.choice(v.SHIP_TYPES),
                launched=self._working_year(captain),
                port=r.choice(towns),
                captain=captain,
                cargo=r.choice(v.CARGOES),
            )
        for name in self._names(v.BOOK_FIRST, v.BOOK_LAST, 40, "The {} {}", "《{}{}》"):
            author = self._person("writer", "painter", "mapmaker")
            self._add(
                "book",
                name,
                author=author,
                year=self._working_year(author),
                subject=r.choice(v.SUBJECTS),
                setting=r.choice(towns),
                pages=r.randrange(60, 990),
            )
        for word in v.LIGHTHOUSES:
            keeper = self._person("lighthouse keeper")
            self._add(
                "lighthouse",
                Words(f"{word.en} Light", f"{word.zh}灯塔"),
                keeper=keeper,
                built=keeper.facts["born"] - r.randint(1, 60),
                height=r.randint(9, 71),
                light=r.choice(v.LIGHTS),
                town=r.choice(towns),
            )

    def _make_legends(self) -> None:
        """Three stories for each entity: which story, and who and what takes part in it."""
        r = self.random
        for kind, entities in list(self.kinds.items()):
            for entity in entities:
                for number in r.sample(range(STORIES.get(kind, OTHER_STORIES)), 3):
                    slots: dict[str, Value] = {
                        slot: r.choice([e for e in self.kinds[slot] if e is not entity])
                        for slot in (
                            "person",
                            "town",
                            "bird",
                            "dish",
                            "ship",
                            "instrument",
                            "river",
                        )
                    }
                    slots |= {
                        "pet": r.choice(v.PETS),
                        "month": r.choice(v.MONTHS),
                        "n": r.randint(3, 60),
                    }
                    entity.legends.append((number, slots))


def table(world: World) -> list[tuple[str, str, str, str, str, str]]:
    """The facts as rows: kind, name, name in Chinese, attribute, value, value in Chinese."""
    rows = []
    for entity in world.entities:
        for attribute, value in entity.facts.items():
            if isinstance(value, int):
                en = zh = str(value)
            else:
                words = value.name if isinstance(value, Entity) else value
                en, zh = words
            rows.append((entity.kind, entity.name.en, entity.name.zh, attribute, en, zh))
    return rows
