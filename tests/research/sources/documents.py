"""Documents that tests read: made here, so that what is in them is known."""

from __future__ import annotations

import io
from pathlib import Path

from pypdf import PdfReader, PdfWriter
from reportlab.pdfgen.canvas import Canvas

from agentflow.research.sources import ReadLimits, Source, read_sources

HTML = """<html><head><title>On Tides</title></head><body><nav>home</nav><article><h1>On Tides</h1>
<p>The tide in the Bay of Fundy rises by sixteen metres.</p>
<p>The moon pulls the water of the ocean, the water runs into the bay, and the shape of the bay makes each swing
grow with the next one, so that the boats lie on the mud for half of the day and float for the other half.</p>
</article></body></html>"""


def pdf(*pages: str, title: str = "") -> bytes:
    out = io.BytesIO()
    canvas = Canvas(out)
    if title:
        canvas.setTitle(title)
    for page in pages:
        canvas.drawString(72, 720, page)
        canvas.showPage()
    canvas.save()
    return out.getvalue()


def encrypted(password: str) -> bytes:
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf("secret words"))))
    writer.encrypt(password, owner_password="owner", algorithm="AES-256")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


PAPER = pdf("Words on paper.", "More of them.")


async def read_one(path: Path, limits: ReadLimits | None = None) -> Source:
    (source,) = (await read_sources([str(path)], limits=limits)).sources
    return source
