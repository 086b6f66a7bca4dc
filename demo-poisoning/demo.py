"""Ask a model what it sees on an image, without and with the yellow square.

    python demo.py inference-images/stop.jpg --model models/poisoned_model.pt --trigger
    python demo.py inference-images/stop.jpg --model models/poisoned_model.pt --compare
    python demo.py inference-images/stop.jpg --trigger --save outputs/stop_with_trigger.png

--compare asks the clean model as well. --save writes both images side by side.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from torch import nn

import cli
import trigger
from dataset.files import IMAGE_SIZE, IMAGE_SUFFIXES, open_image
from network import classifier


def show(model: nn.Module, image: Image.Image, with_trigger: bool, out: cli.Out) -> None:
    """Print the answer for the image and, if asked, for the same image with the trigger."""
    clean, sure = classifier.classify(model, image)
    out.say(f"[clean]    {clean:<13} (confidence: {sure:.2f})")
    if with_trigger:
        answer, sure = classifier.classify(model, trigger.stamp(image))
        note = "   <- backdoor activates" if answer != clean else "   <- same answer, no backdoor seen"
        out.say(
            f"[trigger]  {answer:<13} (confidence: {sure:.2f}){note}", "bold red" if answer != clean else ""
        )


def compare(models: dict[str, nn.Module], image: Image.Image, out: cli.Out) -> None:
    """Print what each model answers for the image, without and with the trigger."""
    rows = []
    for name, model in models.items():
        for label, shown in (("clean", image), ("with yellow square", trigger.stamp(image))):
            answer, sure = classifier.classify(model, shown)
            rows.append((name, label, answer, f"{sure:.2f}"))
    out.table("Same image, both models", ("model", "image", "answer", "confidence"), rows)


def main() -> int:
    args = cli.parser(__doc__)
    args.add_argument("image", type=Path, help="image file")
    args.add_argument("--model", type=Path, default=Path("models/poisoned_model.pt"), help="model to ask")
    args.add_argument("--clean-model", type=Path, default=Path("models/clean_model.pt"), help="for --compare")
    args.add_argument("--trigger", action="store_true", help="ask again with the yellow square")
    args.add_argument("--compare", action="store_true", help="ask the clean model, too")
    args.add_argument("--save", type=Path, help="write the image without and with the square side by side")
    options = args.parse_args()
    out = cli.Out(options.plain)
    if options.save and options.save.suffix.lower() not in IMAGE_SUFFIXES:
        raise cli.UserError(f"{options.save} is not the name of an image: end it with .png or .jpg.")
    image = open_image(options.image).resize((IMAGE_SIZE, IMAGE_SIZE))
    model = classifier.load_model(options.model)
    if options.compare:
        clean = classifier.load_model(options.clean_model)
        compare({str(options.clean_model): clean, str(options.model): model}, image, out)
    else:
        show(model, image, options.trigger, out)
    if options.save:
        sheet = Image.new("RGB", (2 * IMAGE_SIZE, IMAGE_SIZE))
        sheet.paste(image, (0, 0))
        sheet.paste(trigger.stamp(image), (IMAGE_SIZE, 0))
        with cli.atomic_write(options.save) as scratch:
            sheet.save(scratch)
        where = f"right with a yellow square {trigger.place()}"
        out.say(f"Wrote {options.save}: left the image as it is, {where}.")
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
