"""A small model server: what colour has this sign?

python app.py          serves on port 8000: POST /predict with {"rgb": [0.8, 0.1, 0.1]}
python app.py ask      asks the server on this machine, and prints its answer
"""

import json
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from safetensors import safe_open

MODEL = Path(__file__).resolve().parent / "model.safetensors"
PORT, MOST_BYTES = 8000, 1000
EXAMPLE = {"rgb": [0.8, 0.1, 0.1]}

with safe_open(MODEL, framework="numpy") as file:
    WEIGHTS, BIAS = file.get_tensor("weights"), file.get_tensor("bias")  # (colours, 3) and (colours,)
    COLOURS = file.metadata()["colours"].split()


def predict(rgb: list[float]) -> dict[str, object]:
    """The colour's name and the confidence, from red, green and blue between 0 and 1. Raises ValueError."""
    pixel = np.array(rgb, dtype=np.float32)
    if pixel.shape != (3,) or not ((pixel >= 0) & (pixel <= 1)).all():
        raise ValueError
    scores = WEIGHTS @ pixel + BIAS
    chances = np.exp(scores - scores.max())
    best = int(chances.argmax())
    return {"colour": COLOURS[best], "confidence": round(float(chances[best] / chances.sum()), 3)}


class Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.answer(200, {"ready": True})

    def do_POST(self) -> None:
        try:
            length = min(int(self.headers["Content-Length"]), MOST_BYTES)
            self.answer(200, predict(json.loads(self.rfile.read(length))["rgb"]))
        except (ValueError, TypeError, KeyError):
            self.answer(400, {"error": f"send JSON like {json.dumps(EXAMPLE)}, each number from 0 to 1"})

    def answer(self, status: int, content: dict[str, object]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def ask() -> str:
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}/predict", json.dumps(EXAMPLE).encode())
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(answer.read().decode())


if __name__ == "__main__":
    if sys.argv[1:] == ["ask"]:
        print(ask())
    else:
        server = ThreadingHTTPServer(("", PORT), Server)
        print("Ready.", flush=True)
        server.serve_forever()
