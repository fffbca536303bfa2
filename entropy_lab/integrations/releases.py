"""Which releases of a framework our additions were run with: they override what the framework may change."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from entropy_lab.errors import MissingExtraError

Release = tuple[int, int]


@dataclass(frozen=True)
class Supported:
    """The releases of a framework that were tested.

    Examples
    --------
    >>> Supported("mylib", "MyLib", (1, 0), (1, 4)).allowed
    '1.0 to 1.4, tested at both ends'
    """

    package: str
    """Name on the package index, and of our extra."""
    title: str
    """As it is written."""
    oldest: Release
    newest: Release

    @property
    def allowed(self) -> str:
        """The releases in words."""
        oldest, newest = (".".join(map(str, each)) for each in (self.oldest, self.newest))
        return f"{oldest}, tested" if oldest == newest else f"{oldest} to {newest}, tested at both ends"

    @property
    def hint(self) -> str:
        """How to install one."""
        return f"pip install 'entropy-lab[{self.package}]'"

    def require(self, found: str | None = None) -> str:
        """Refuse a release whose inner parts may be others than those that are overridden here.

        Parameters
        ----------
        found
            The version; None for that of the installed one.

        Returns
        -------
        str
            The version.

        Raises
        ------
        MissingExtraError
            The framework is not installed, or of another release than those tested.

        Examples
        --------
        >>> Supported("mylib", "MyLib", (1, 0), (1, 4)).require("1.5.0")
        Traceback (most recent call last):
        entropy_lab.errors.MissingExtraError: mylib: MyLib is 1.5.0; 1.0 to 1.4, tested at both ends. \
Hint: pip install 'entropy-lab[mylib]'
        """
        try:
            known = found or version(self.package)
        except PackageNotFoundError as error:
            raise MissingExtraError(self.package, f"{self.title} is not installed", self.allowed, self.hint) from error
        try:
            release = tuple(int(part) for part in known.split(".")[:2])
        except ValueError:
            release = ()
        if not self.oldest <= release <= self.newest:
            raise MissingExtraError(self.package, f"{self.title} is {known}", self.allowed, self.hint)
        return known
