"""What is said before a run that will not do what it seems to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from model.training.settings.advice import Plan, advice
from model.training.settings.choosing import queries_for
from model.training.settings.config import TrainConfig

SOUND = Plan(
    TrainConfig(warmup_steps=100),
    steps=9_000,
    pictures=100_000,
    most_objects=60,
    crowded=0,
    queries=100,
    large_from_scratch=True,
)
DECAY = TrainConfig(lr_schedule="decay", lr_turn=1)
DROPS = TrainConfig(lr_schedule="step", lr_drops=(0.5, 1))


def test_there_is_nothing_to_say_of_a_sound_run() -> None:
    assert list(advice(SOUND)) == []
    cosine = TrainConfig(lr_schedule="cosine", lr_turn=1)
    assert list(advice(replace(SOUND, config=cosine))) == []


@pytest.mark.parametrize(
    ("plan", "said", "helps"),
    [
        (replace(SOUND, steps=100), "The warm-up takes 100 steps and the run has 100", "--warmup-steps 10,"),
        (replace(SOUND, config=TrainConfig(lr_turn=1)), "would fall at step 9000 and the run ends at", "--lr-turn"),
        (replace(SOUND, config=DECAY), "would fall at step 9000", "--lr-turn"),
        (replace(SOUND, config=DROPS), "would fall at step 9000", "--lr-drops"),
        (replace(SOUND, pictures=300), "There are 300 pictures", "--init facebook/detr-resnet-50, or take --recipe"),
        (replace(SOUND, crowded=3, queries=50), "In 3 of 100,000 pictures there are more objects (up to 60)", "s 75."),
    ],
)
def test_what_will_not_work_is_said_in_a_sentence_with_the_option_that_helps(plan: Plan, said: str, helps: str) -> None:
    (sentence,) = advice(plan)
    assert said in sentence
    assert helps in sentence
    assert sentence.endswith(".")


@pytest.mark.parametrize(
    ("objects", "queries", "enough"), [(30, 50, 50), (50, 50, 50), (51, 50, 75), (300, 100, 375), (9000, 100, 1000)]
)
def test_a_fresh_network_has_queries_for_the_fullest_picture(objects: int, queries: int, enough: int) -> None:
    assert queries_for(objects, queries) == enough
