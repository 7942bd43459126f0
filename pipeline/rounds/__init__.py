"""One round of advice: collect, select, ask, revise, rows, commit. Talks to advisers only through their Protocol."""
