"""Reads a report as a browser would, and says what it would fetch."""

import json
import re
from html.parser import HTMLParser

# What makes a browser ask for something, and what may stand there: a text of the page itself.
LOADS = {"src", "srcset", "poster", "background", "data", "action", "formaction", "ping"}
FETCHES = re.compile(
    r"\bfetch\(|XMLHttpRequest|\bimport\b|WebSocket|sendBeacon|\bsrc\b|EventSource"
)


class Page(HTMLParser):
    """A parsed page.

    Attributes:
        tags: pairs of a name and its attributes, in order.
        scripts: the texts of scripts by their ids.
        styles: of style elements and attributes.
        text: what is read, without scripts and styles.
    """

    def __init__(self, html):
        super().__init__()
        self.tags, self.scripts, self.styles, self.text = [], {}, [], ""
        self._inside = None
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append((tag, found))
        self.styles += [found["style"]] if "style" in found else []
        if tag in ("script", "style"):
            self._inside = tag, found.get("id")

    def handle_endtag(self, tag):
        if self._inside and tag == self._inside[0]:
            self._inside = None

    def handle_data(self, data):
        if self._inside is None:
            self.text += data
        elif self._inside[0] == "style":
            self.styles.append(data)
        else:
            self.scripts[self._inside[1]] = self.scripts.get(self._inside[1], "") + data

    def json(self, name):
        """The content of a script that holds data."""
        return json.loads(self.scripts[name])

    def links(self):
        """Where one can go from here."""
        return [found["href"] for tag, found in self.tags if tag == "a"]

    def faults(self):
        """What would be fetched without being asked for, and what could run but is not ours."""
        found = []
        for tag, given in self.tags:
            found += [f"{tag} {name}={given[name]}" for name in LOADS & given.keys() if tag != "a"]
            found += [f"{tag} {name}" for name in given if name.startswith("on")]
            if tag == "link" and given.get("href") != "data:,":
                found.append(f"link {given.get('href')}")
            if tag in ("iframe", "object", "embed", "img", "base", "form", "audio", "video"):
                found.append(tag)
            if tag == "a" and re.match(r"[a-z]+:|//", given["href"], re.I):
                found.append(f"a {given['href']}")
        found += [s for s in self.styles if re.search(r"url\(|@import|expression", s)]
        own = self.scripts.get("page", "")
        found += FETCHES.findall(own)
        found += [f"script {name}" for name in self.scripts.keys() - EXPECTED]
        return found


EXPECTED = {"results", "figures", "themes", "plotly", "page"}
