"""Which findings have stood for long enough to be told: a test that is made at every step finds something by chance."""

from __future__ import annotations

from collections.abc import Sequence

from entropy_lab.diagnosis.finding import SEVERITIES, Finding


class Standing:
    """Tells findings once they have stood, and withdraws them once they have been gone, for some steps.

    Parameters
    ----------
    confirm
        Recorded steps through which every look must show a finding before it is told, and through which none may show
        it before it is withdrawn; 0 tells at once. What the first look shows is told at once: it is one look.

    Attributes
    ----------
    told
        Name of each finding that stands -> its worst severity so far.

    Examples
    --------
    >>> from entropy_lab.diagnosis.finding import Finding
    >>> found = Finding("collapse", "", "warning", "", None, (), "", "", (), ())
    >>> standing = Standing(confirm=2)
    >>> looks = [(10, []), (11, [found]), (12, [found]), (13, [found]), (14, []), (15, [found]), (16, []), (18, [])]
    >>> [[finding.name for finding in standing.see(findings, n)] for n, findings in looks]
    [[], [], [], ['collapse'], [], [], [], []]
    >>> standing.told, standing.withdrawn
    ({}, ('collapse',))
    """

    def __init__(self, confirm: int) -> None:
        self.told: dict[str, str] = {}
        self.withdrawn: tuple[str, ...] = ()
        self._confirm = confirm
        self._since: dict[str, int] = {}
        self._gone: dict[str, int] = {}
        self._looked = False

    def see(self, findings: Sequence[Finding], n_steps: int) -> tuple[Finding, ...]:
        """Take what a look shows.

        Parameters
        ----------
        findings
            All of them.
        n_steps
            Steps recorded so far.

        Returns
        -------
        tuple of Finding
            Those to tell now: they have just been confirmed, or are worse than they were told. `withdrawn` then names
            those that just went.
        """
        present = {finding.name for finding in findings}
        self._since = {name: self._since.get(name, n_steps) for name in present}
        self._gone = {name: self._gone.get(name, n_steps) for name in self.told if name not in present}
        new = tuple(finding for finding in findings if self._stands(finding, n_steps) and self._is_news(finding))
        self.told |= {finding.name: finding.severity for finding in new}
        self.withdrawn = tuple(name for name, since in self._gone.items() if n_steps - since >= self._confirm)
        for name in self.withdrawn:
            del self.told[name]
        self._looked = True
        return new

    def _stands(self, finding: Finding, n_steps: int) -> bool:
        return not self._looked or finding.name in self.told or n_steps - self._since[finding.name] >= self._confirm

    def _is_news(self, finding: Finding) -> bool:
        told = self.told.get(finding.name)
        return told is None or SEVERITIES.index(finding.severity) < SEVERITIES.index(told)
