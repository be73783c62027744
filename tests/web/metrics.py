"""The metrics of a running daemon, its alert rules and its dashboard, before promtool."""

import json
import os
import re
import subprocess
import sys
import urllib.request

ROOT = os.getcwd()


def promtool(*arguments, text=None):
    done = subprocess.run(["promtool", *arguments], input=text, capture_output=True, text=True)
    print(f"promtool {' '.join(arguments[:2])}: {'ok' if done.returncode == 0 else 'FAILED'}")
    if done.returncode != 0:
        print(done.stdout, done.stderr)
    return done.returncode == 0


def names_in(text):
    return set(re.findall(r"(?<![:\w])(?:outboxd|process)_[a-z0-9_]+(?![:\w])", text))


exposed = urllib.request.urlopen(os.environ["BASE"] + "/metrics").read().decode()
good = promtool("check", "metrics", text=exposed)
good &= promtool("check", "rules", "config/alerts.yml")
good &= promtool("test", "rules", "config/alerts-test.yml")

# Every series that an alert or a panel asks for is one that the daemon exposes.
families = dict(re.findall(r"^# TYPE (\S+) (\S+)$", exposed, re.M))
series = set(families)
for name, kind in families.items():
    if kind == "histogram":
        series |= {name + "_bucket", name + "_sum", name + "_count"}
rules = open("config/alerts.yml").read()
recorded = set(re.findall(r"record: (\S+)", rules))
expressions = "\n".join(re.findall(r"expr: *(.*(?:\n {8,}.*)*)", rules))
dashboard = json.load(open("config/grafana-dashboard.json"))


def panel_expressions(node):
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "expr":
                yield value
            else:
                yield from panel_expressions(value)
    elif isinstance(node, list):
        for value in node:
            yield from panel_expressions(value)


panels = list(panel_expressions(dashboard))
assert len(panels) > 30 and len(names_in(expressions)) > 10, "nothing was found to compare"
for where, text in [("alerts.yml", expressions), ("grafana-dashboard.json", "\n".join(panels))]:
    unknown = {name for name in names_in(text) if name not in series and name not in recorded}
    # What appears with the first subscription.
    unknown -= {"outboxd_subscription_attempts_total", "outboxd_subscription_outstanding"}
    print(f"series of {where}: {'ok' if not unknown else 'UNKNOWN ' + ', '.join(sorted(unknown))}")
    good &= not unknown
print(f"{len(families)} families, {len(exposed.splitlines())} lines")
sys.exit(0 if good else 1)
