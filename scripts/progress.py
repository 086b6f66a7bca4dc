"""What is done, what comes next, and a hint: ./workshop.sh next, hint and status.

    python scripts/progress.py next [1|2|3]     one sentence: the next thing to do, with its command
    python scripts/progress.py hint [2.1]       the next of three hints for this exercise
    python scripts/progress.py status           a line for each thing: DONE or OPEN
    python scripts/progress.py note EVENT ITEM  for the scripts: note something, such as "shown 1"

Needs nothing but Python, so it also works in a container. Exit code 0: fine. 2: wrong usage, or a log that
cannot be read or written.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable

import log
import tasks
from tasks import DEMOS, HINTS, TITLES, Exercise, UserError


def command(name: str) -> str:
    """How a command of workshop.sh is typed here: in a shell that it opened, `workshop` is on the PATH."""
    return f"{'workshop' if inside() else './workshop.sh'} {name}"


def inside() -> str:
    """The number of the demo whose shell this is; empty outside of ./workshop.sh shell."""
    return os.environ.get("WORKSHOP_SHELL", "")


def open_exercises(state: log.State, demo: int) -> list[Exercise]:
    return [one for one in tasks.of_demo(demo) if one.item not in state.solved]


def what_next(state: log.State, first: int | None = None) -> str:
    """The next thing to do, in one sentence. It comes from the demo `first`, or from the one used last."""
    start = first or state.demo
    for demo in (start, *(other for other in DEMOS if other != start)):
        left = open_exercises(state, demo)
        if str(demo) not in state.shown and inside() != str(demo) and not started(state, demo):
            return f"see demo {demo}, {TITLES[demo]}, attack and defence: {command_outside(f'run {demo}')}"
        if left:
            return f"{left[0].name}: {how_to_start(left[0])}"
        if first:
            return f"nothing is left in demo {demo}; for the other demos: {command('next')}"
    if "pipeline" not in state.shown:
        return f"see how the three demos join, from the data to the model: {command_outside('pipeline')}"
    return f"everything is done; your poster, and what you can do now: {command('wanted')}"


def started(state: log.State, demo: int) -> bool:
    return any(item.startswith(f"{demo}.") for item in state.solved | state.hints)


def command_outside(name: str) -> str:
    """A command that cannot be typed in a shell that ./workshop.sh opened."""
    return (
        f"leave this shell with exit, then type ./workshop.sh {name}" if inside() else f"./workshop.sh {name}"
    )


def how_to_start(exercise: Exercise) -> str:
    check = f"python check.py {exercise.number}"
    if inside() == str(exercise.demo):
        return f"EXERCISES.md says what to do, and this checks it: {check}"
    opening = command_outside(f"shell {exercise.demo}")
    return f"{opening}, and when you have done what EXERCISES.md says: {check}"


def next_command(arguments: argparse.Namespace) -> None:
    print(f"Next: {what_next(log.read(), arguments.demo)}")


def hint_command(arguments: argparse.Namespace) -> None:
    """Print the next hint for an exercise and note that it was given."""
    state = log.read()
    exercise = asked_for(arguments.exercise, state)
    given = state.hints.get(exercise.item, 0)
    number = min(given, HINTS - 1)
    print(f"Hint {number + 1} of {HINTS} for {exercise.name}: {exercise.hints[number]}")
    if given >= HINTS - 1:
        print(f"That is the last one. The solution is in {DEMOS[exercise.demo]}/EXERCISES.md.")
    else:
        print(f"The next one: {command(f'hint {exercise.item}')}")
    if given < HINTS:
        log.add("hint", exercise.item)


def asked_for(item: str | None, state: log.State) -> Exercise:
    """The exercise that was named, or the one that comes next. Raises UserError if there is none."""
    if item:
        for exercise in tasks.every():
            if exercise.item == item:
                return exercise
        raise UserError(f"There is no exercise {item}: {command('status')} lists them all.")
    demo = int(inside() or state.demo)
    for other in (demo, *(one for one in DEMOS if one != demo)):
        if left := open_exercises(state, other):
            return left[0]
    raise UserError(f"Every exercise is solved; {command('hint')} 2.1 shows the hints of one of them again.")


def status_command(_: argparse.Namespace) -> None:
    """Print a line for each thing that there is to do."""
    state = log.read()
    rows: list[tuple[str, object]] = []
    for demo in DEMOS:
        seen = state.shown.get(str(demo)) or not open_exercises(state, demo)  # by run, or by hand to its end
        rows.append((f"demo {demo} seen, {TITLES[demo]}", seen))
        rows += [(one.name, state.solved.get(one.item)) for one in tasks.of_demo(demo)]
    rows.append(("pipeline seen", state.shown.get("pipeline")))
    for what, done in rows:
        print(f"{'DONE' if done else 'OPEN'}: {what}")
    print(f"{sum(bool(done) for _, done in rows)} of {len(rows)} done. Kept in {log.path()}.")
    print(f"Next: {what_next(state)}")


def note_command(arguments: argparse.Namespace) -> None:
    pattern = log.EVENTS.get(arguments.event, "")
    if not re.fullmatch(pattern or "(?!)", arguments.item):
        raise UserError(f"{arguments.event} {arguments.item} cannot be noted: see {log.__name__}.EVENTS.")
    log.add(arguments.event, arguments.item)


def item_of(text: str) -> str:
    """An exercise as people name it: 2.1."""
    if not re.fullmatch(r"[123]\.\d", text):
        raise argparse.ArgumentTypeError(f"{text} does not name an exercise: write it like 2.1")
    return text


def parser() -> argparse.ArgumentParser:
    made = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = made.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)

    def add(name: str, does: Callable[[argparse.Namespace], None], says: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=says, description=says)
        one.add_argument("--plain", action="store_true", help="changes nothing: this is plain text already")
        one.set_defaults(does=does)
        return one

    one = add("next", next_command, "the next thing to do, in one sentence")
    one.add_argument("demo", nargs="?", type=int, choices=DEMOS, help="look there first")
    one = add("hint", hint_command, "the next of three hints")
    one.add_argument("exercise", nargs="?", type=item_of, help="such as 2.1 (default: what comes next)")
    add("status", status_command, "a line for each thing to do: DONE or OPEN")
    one = add("note", note_command, "note something, for the scripts")
    one.add_argument("event")
    one.add_argument("item")
    return made


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage around it."""

    def error(self, message: str) -> object:  # type: ignore[override]
        print(f"error: {message}; ./workshop.sh help shows what there is.", file=sys.stderr)
        sys.exit(2)


def run(main: Callable[[], int]) -> int:
    """Call main(). Gives its exit code; bad input is one sentence on stderr and code 2."""
    code = 0
    try:
        code = main()
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader went away, for example `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def main() -> int:
    arguments = parser().parse_args()
    arguments.does(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
