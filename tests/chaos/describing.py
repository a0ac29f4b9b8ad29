"""reprocess-videos --inline on the stage: videos of some scenes each, described one by one and then summed up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import psycopg

from jobs.rich_targets import SCENES, SUMMARY, pair
from jobs.targets import Target
from tests.chaos.judge import Finding, note
from tests.chaos.stage import Stage, any_of, mix_kinds
from tests.chaos.witness import Records, WitnessProcess
from tests.chaos.world import Truth, World
from tests.servers.fake_script import rule

WORKERS = 3
SCENES_EACH = 3
SHARES = {"refused": 0.1, "rich": 0.1}
SCHEMA = """
alter table public.videos add column owner_id text not null default 'owner', add column filename text,
    add column status text not null default 'READY', add column video_summary text,
    add column has_rich_semantics boolean;
create table public.video_scenes (
    video_id text not null references public.videos on delete cascade, index integer not null,
    transcript_segment text, visual_summary text, thumbnail_url text, visual_description text,
    visual_entities text[], visual_actions text[], tags text[], unique (video_id, index)
);
create table public.scene_audit (video_id text not null, index integer not null);
create function public.note_scene() returns trigger language plpgsql as $$ begin
    insert into public.scene_audit values (new.video_id, new.index);
    return null;
end $$;
create trigger note_scene after update of visual_description on public.video_scenes
    for each row execute function public.note_scene();
"""
TELLTALES = {
    "write-before-journal": "re-paid",
    "booked-after-send": "ledger",
    "flagged-too-early": "falsely_done",
}


class Describing(Stage):
    """Units are the scenes' and the videos' calls."""

    job = "inline"
    title = "scenes"
    target = pair(SCENES, SUMMARY)
    cell = "video_summary"
    source = "filename"
    units_most = WORKERS
    schema = SCHEMA
    telltales = TELLTALES
    judges_stops = False

    @property
    def targets(self) -> Sequence[Target]:
        return (SCENES, self.target)

    def words(self) -> Sequence[str]:
        """The provider bills by one price, so both steps have one model."""
        how = ("--concurrency", str(WORKERS), "--db-load", "100%", "--model", "gpt-4o-mini")
        return ("reprocess-videos", "--inline", "--yes", "--json", *how)

    def requests(self, items: int) -> int:
        return items * 2 // 3

    def choose_kinds(self, seed: int, items: int) -> dict[str, str]:
        """So many calls as other jobs have rows."""
        return mix_kinds(seed, items // (SCENES_EACH + 1), "v", SHARES)

    def fill(self, dsn: str, kinds: Mapping[str, str]) -> None:
        with psycopg.connect(dsn, application_name="world") as connection:
            connection.cursor().executemany(
                "insert into videos (id, title, channel_id, filename, has_rich_semantics) "
                "values (%s, 'talk', 'c1', %s, %s)",
                [(key, f"{key}.mp4", kind == "rich" or None) for key, kind in kinds.items()],
            )
            connection.cursor().executemany(
                "insert into video_scenes (video_id, index, transcript_segment) values (%s, %s, %s)",
                [
                    (
                        key,
                        place,
                        f"[[item:{_unit(key, place)}]] Speaker {key} shows how crane {place} is lifting boxes.",
                    )
                    for key in kinds
                    for place in range(SCENES_EACH)
                ],
            )

    def prepare(self, world: World, witness: WitnessProcess, *, mischief: bool, garbled: bool) -> None:
        del mischief, garbled
        witness.reset()
        witness.script(rule("refusal", on={"item": any_of([_unit(key, 1) for key in world.of("refused")])}))

    def judge_results(
        self, finding: Finding, world: World, truth: Truth, records: Records, *, edits_done: bool
    ) -> None:
        """A flag says that all is there: the summary, and every scene's description."""
        del records, edits_done
        rows = "select v.id, v.has_rich_semantics, count(s.visual_description) from videos v join video_scenes s "
        for key, is_rich, described in ask(world, rows + "on s.video_id = v.id group by v.id"):
            kind, has_text = world.kinds[key], truth.cells.get(key) is not None
            if kind == "eligible" and not (is_rich and has_text and described == SCENES_EACH):
                note(finding.lost, key)
            elif kind == "refused" and described != SCENES_EACH - 1:
                note(finding.lost, f"{key}: {described} scenes")
            elif kind == "rich" and (has_text or described):
                note(finding.clobbered, key)
            if kind != "rich" and is_rich and not (has_text and described == SCENES_EACH):
                note(finding.falsely_done, f"{key} is flagged with {described} scenes")

    def changed(self, world: World, truth: Truth) -> Iterable[str]:
        """Both audit trails: of the scenes, and of their videos."""
        scenes = [f"{key} {place}" for key, place in ask(world, "select video_id, index from scene_audit")]
        return [*scenes, *super().changed(world, truth)]

    def claimed(self, world: World, truth: Truth) -> Iterable[str]:
        """A video whose scene was refused has others that were described."""
        return truth.provenance & set(world.of("eligible"))

    def asked_for(self, world: World, truth: Truth) -> Callable[[str], int]:
        del world, truth
        return lambda unit: 1


def _unit(video: str, place: int) -> str:
    return f"{video}.{place}"


def ask(world: World, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(world.dsn, autocommit=True, application_name="world") as connection:
        return connection.execute(query.encode()).fetchall()
