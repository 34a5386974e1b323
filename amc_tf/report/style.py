"""The style sheet of a page, for light and dark themes and for wide and narrow screens."""

_LIGHT = """
  --back: #ffffff; --card: #f6f7f9; --text: #24292f; --quiet: #57606a; --line: #d0d7de;
  --grid: #e8ebef; --pale: #c9d3de; --grey: #8a9199; --blue: #0969b2; --sky: #3b9fd6;
  --orange: #c96a00; --green: #1a7f56; --purple: #a0489b; --red: #cf3a2b;
"""
_DARK = """
  --back: #14181d; --card: #1d232a; --text: #e3e8ee; --quiet: #a3adb8; --line: #39424c;
  --grid: #252c34; --pale: #465362; --grey: #8f99a3; --blue: #58a9f0; --sky: #8fd3ff;
  --orange: #f0a03c; --green: #4cc38a; --purple: #dd8fd6; --red: #ff7b6b;
"""

STYLE = f"""
:root {{ {_LIGHT} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_DARK} }} }}
* {{ box-sizing: border-box; }}
body {{
  margin: 0 auto; padding: 1rem; max-width: 62rem; background: var(--back); color: var(--text);
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}}
h1 {{ font-size: 1.5rem; margin: 0.3em 0; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.1rem; margin: 0 0 0.4em; }}
p {{ margin: 0.4em 0; color: var(--quiet); }}
a {{ color: var(--blue); }}
section {{ margin: 2rem 0; overflow-x: auto; }}
.chart {{ width: 100%; min-height: 8rem; }}
.chart.vega-embed {{ display: flex; flex-direction: column; }}
.chart form.vega-bindings {{
  order: -1; margin: 0.2em 0; display: flex; flex-wrap: wrap; gap: 0.3em 1.2em;
}}
select {{
  font: inherit; color: var(--text); background: var(--card); border: 1px solid var(--line);
  border-radius: 4px; padding: 0.2em 0.4em;
}}
table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }}
th, td {{
  padding: 0.35em 0.6em; border-bottom: 1px solid var(--line); text-align: right;
  vertical-align: top;
}}
th {{ color: var(--quiet); font-weight: 600; }}
th:first-child, td:first-child {{ text-align: left; }}
td:first-child {{ font-weight: 600; }}
dl, dd {{ margin: 0; }}
dt {{ color: var(--quiet); font-size: 0.85rem; }}
.tiles {{
  display: grid; gap: 0.7rem; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr));
}}
.tiles > div {{
  background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 0.7rem 0.9rem;
}}
.tiles dd {{ font-size: 1.55rem; font-weight: 600; }}
.tiles small {{ display: block; font-size: 0.8rem; font-weight: normal; color: var(--quiet); }}
.tiles .bad dd {{ color: var(--red); }}
.tiles .bad small {{ color: var(--quiet); }}
.verdict {{ font-size: 1.15rem; color: var(--text); max-width: 46rem; }}
.warnings {{
  margin: 0.8rem 0; padding: 0.6rem 0.9rem 0.6rem 2rem; border-left: 4px solid var(--orange);
  background: var(--card);
}}
nav {{ display: flex; flex-wrap: wrap; gap: 0.2rem 1rem; margin: 1rem 0; font-size: 0.9rem; }}
.facts > div {{ display: grid; grid-template-columns: 12rem 1fr; gap: 1rem; margin: 0.3em 0; }}
.facts dd, pre {{ font-family: ui-monospace, Menlo, Consolas, monospace; font-size: 0.82rem; }}
.facts dd {{ overflow-wrap: anywhere; }}
pre {{ white-space: pre-wrap; overflow-wrap: anywhere; }}
summary {{ cursor: pointer; font-weight: 600; }}
#vg-tooltip-element {{
  background: var(--card); color: var(--text); border: 1px solid var(--line); border-radius: 6px;
  padding: 0.5em 0.7em; font: 0.8rem/1.4 system-ui, sans-serif; position: fixed; z-index: 9;
  pointer-events: none; max-width: 90vw; visibility: hidden;
}}
#vg-tooltip-element.visible {{ visibility: visible; }}
#vg-tooltip-element td {{ border: 0; padding: 0 0.3em; font-weight: normal; }}
#vg-tooltip-element td.key {{ color: var(--quiet); }}
@media print {{
  nav, form.vega-bindings {{ display: none; }}
  body {{ max-width: none; padding: 0; }}
  section, .tiles > div, tr {{ break-inside: avoid; }}
}}
@media (max-width: 50rem) {{
  body {{ padding: 0.7rem; }}
  .tiles {{ grid-template-columns: repeat(2, 1fr); gap: 0.4rem; }}
  .tiles > div {{ padding: 0.4rem 0.6rem; }}
  .tiles dd {{ font-size: 1.2rem; }}
  nav {{ display: none; }}
  .facts > div {{ display: block; }}
  section > table thead {{ display: none; }}
  section > table tr {{
    display: block; padding: 0.5em 0; border-bottom: 1px solid var(--line);
  }}
  section > table td {{
    display: flex; justify-content: space-between; gap: 1em; border: 0; padding: 0.1em 0;
    text-align: right; overflow-wrap: anywhere;
  }}
  section > table td:empty {{ display: none; }}
  section > table td:not(:first-child)::before {{
    content: attr(data-column); color: var(--quiet); text-align: left; overflow-wrap: normal;
  }}
}}
"""
