"""Crystal prototypes and the compounds known to have them, with lattice constants at room temperature.

Constants are textbook values, as collected in Wyckoff, Crystal Structures (2nd ed., 1963-71) and in the CRC Handbook of
Chemistry and Physics, to 0.001 Å where known so well; high-temperature and high-pressure phases are at their own
conditions. About 20 zinc-blende, wurtzite and lead-salt values were compared with a public table (agreement 0.025 Å)
and the ionic ones with ionic radii; the others were not checked against a second source. They are for training and
teaching, not reference data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Site = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Prototype:
    """A structure type: one site per letter of the formula, in the formula's order.

    Attributes:
        spacegroup: International number.
        sites: Fractional coordinates of each element's site, from the internal parameters.
        hexagonal: Whether gamma is 120 degrees.
        parameters: Names of the numbers that a compound states: a, then c where it differs, then internal ones.
        counts: Atoms of each site in the formula.
    """

    spacegroup: int
    sites: Callable[..., tuple[Site, ...]]
    counts: tuple[int, ...]
    parameters: tuple[str, ...] = ("a",)
    hexagonal: bool = False

    def cell(self, values: tuple[float, ...]) -> tuple[float, float, float, float, float, float]:
        """Lengths in Å and angles in degrees of the conventional cell."""
        a = values[0]
        c = values[1] if "c" in self.parameters else a
        return a, a, c, 90.0, 90.0, 120.0 if self.hexagonal else 90.0

    def positions(self, values: tuple[float, ...]) -> tuple[Site, ...]:
        """Fractional coordinates of one atom per site."""
        return self.sites(*values[2 if "c" in self.parameters else 1 :])


PROTOTYPES = {
    "rock salt": Prototype(225, lambda: ((0.0, 0.0, 0.0), (0.5, 0.5, 0.5)), (1, 1)),
    "zinc blende": Prototype(216, lambda: ((0.0, 0.0, 0.0), (0.25, 0.25, 0.25)), (1, 1)),
    "wurtzite": Prototype(
        186, lambda u: ((1 / 3, 2 / 3, 0.0), (1 / 3, 2 / 3, u)), (1, 1), ("a", "c", "u"), hexagonal=True
    ),
    "caesium chloride": Prototype(221, lambda: ((0.0, 0.0, 0.0), (0.5, 0.5, 0.5)), (1, 1)),
    "fluorite": Prototype(225, lambda: ((0.0, 0.0, 0.0), (0.25, 0.25, 0.25)), (1, 2)),
    "antifluorite": Prototype(225, lambda: ((0.25, 0.25, 0.25), (0.0, 0.0, 0.0)), (2, 1)),
    "rutile": Prototype(136, lambda u: ((0.0, 0.0, 0.0), (u, u, 0.0)), (1, 2), ("a", "c", "u")),
    "perovskite": Prototype(221, lambda: ((0.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, 0.5, 0.0)), (1, 1, 3)),
    "corundum": Prototype(
        167, lambda z, x: ((0.0, 0.0, z), (x, 0.0, 0.25)), (2, 3), ("a", "c", "z", "x"), hexagonal=True
    ),
    "quartz": Prototype(
        154,
        lambda u, x, y, z: ((u, 0.0, 2 / 3), (x, y, z)),
        (1, 2),
        ("a", "c", "u", "x", "y", "z"),
        hexagonal=True,
    ),
}


def _table(text: str) -> dict[str, tuple[float, ...]]:
    """Compounds of one prototype: "formula numbers, formula numbers, ..."; elements in the order of its sites."""
    rows = (row.split() for row in text.split(","))
    return {formula: tuple(map(float, numbers)) for formula, *numbers in rows}


LITERATURE: dict[str, dict[str, tuple[float, ...]]] = {
    "rock salt": _table("""
        LiH 4.083, LiF 4.026, LiCl 5.140, LiBr 5.501, LiI 6.012, NaH 4.880, NaF 4.634, NaCl 5.640,
        NaBr 5.973, NaI 6.473, KF 5.347, KCl 6.293, KBr 6.600, KI 7.066, RbF 5.652, RbCl 6.581,
        RbBr 6.889, RbI 7.342, CsF 6.008, AgF 4.936, AgCl 5.549, AgBr 5.775, MgO 4.212, MgS 5.203,
        MgSe 5.451, CaO 4.811, CaS 5.690, CaSe 5.924, CaTe 6.345, SrO 5.160, SrS 6.020, SrSe 6.236,
        SrTe 6.660, BaO 5.539, BaS 6.386, BaSe 6.600, BaTe 6.986, MnO 4.444, FeO 4.307, CoO 4.260,
        NiO 4.177, CdO 4.695, EuO 5.141, PbS 5.936, PbSe 6.124, PbTe 6.462, SnTe 6.318, MnS 5.224,
        ScN 4.502, TiN 4.240, ZrN 4.577, VN 4.136, TiC 4.328, ZrC 4.698, HfC 4.640, NbC 4.470, TaC 4.455,
        UC 4.960, UN 4.890, LaN 5.301
    """),
    "zinc blende": _table("""
        BN 3.615, BP 4.538, BAs 4.777, AlP 5.463, AlAs 5.661, AlSb 6.136, GaP 5.451, GaAs 5.653,
        GaSb 6.096, InP 5.869, InAs 6.058, InSb 6.479, ZnS 5.409, ZnSe 5.668, ZnTe 6.101, CdS 5.832,
        CdSe 6.050, CdTe 6.482, HgS 5.852, HgSe 6.084, HgTe 6.461, BeS 4.865, BeSe 5.139, BeTe 5.626,
        CuCl 5.416, CuBr 5.691, CuI 6.051, AgI 6.473, SiC 4.360
    """),
    "wurtzite": _table("""
        ZnO 3.250 5.207 0.382, BeO 2.698 4.377 0.378, AlN 3.112 4.982 0.382, GaN 3.189 5.185 0.377,
        InN 3.545 5.703 0.38, ZnS 3.823 6.261 0.375, CdS 4.137 6.716 0.377, CdSe 4.300 7.011 0.376,
        AgI 4.592 7.510 0.375, SiC 3.076 5.048 0.375, MgTe 4.548 7.390 0.375
    """),
    "caesium chloride": _table("""
        CsCl 4.123, CsBr 4.296, CsI 4.567, TlCl 3.834, TlBr 3.985, NiAl 2.887, FeAl 2.909, CoAl 2.862,
        CuZn 2.950, AuZn 3.149, AgZn 3.156, AgMg 3.310, AuMg 3.266, AgCd 3.330, AuCd 3.323, AgLi 3.168,
        HgLi 3.287, HgMg 3.448, CuBe 2.702, NiBe 2.621, CoBe 2.611, PdBe 2.819, FeTi 2.976, CoTi 2.995,
        NiTi 3.015, LiTl 3.431, SrTl 4.038, CaTl 3.851, MgTl 3.628, PdIn 3.246, YCu 3.476, YAg 3.619
    """),
    "fluorite": _table("""
        CaF2 5.463, SrF2 5.800, BaF2 6.200, CdF2 5.388, PbF2 5.940, HgF2 5.540, EuF2 5.842, SrCl2 6.977,
        CeO2 5.411, PrO2 5.392, ThO2 5.597, UO2 5.471, NpO2 5.434, PuO2 5.396, ZrO2 5.090, HfO2 5.115,
        AuAl2 5.997, AuGa2 6.076, AuIn2 6.515, PtAl2 5.910, YH2 5.205, ScH2 4.783
    """),
    "antifluorite": _table("""
        Li2O 4.619, Na2O 5.550, K2O 6.436, Rb2O 6.740, Li2S 5.708, Na2S 6.526, K2S 7.391, Rb2S 7.650,
        Li2Se 6.005, Na2Se 6.809, K2Se 7.676, Li2Te 6.504, Na2Te 7.314, K2Te 8.152, Be2C 4.342,
        Mg2Si 6.351, Mg2Ge 6.385, Mg2Sn 6.765, Mg2Pb 6.813
    """),
    "rutile": _table("""
        TiO2 4.594 2.959 0.305, SnO2 4.738 3.187 0.307, GeO2 4.395 2.860 0.306, PbO2 4.955 3.383 0.307,
        MnO2 4.398 2.873 0.305, VO2 4.555 2.851 0.3, CrO2 4.421 2.916 0.301, RuO2 4.492 3.107 0.306,
        IrO2 4.505 3.159 0.308, OsO2 4.500 3.184 0.308, SiO2 4.179 2.665 0.306, MgF2 4.621 3.052 0.303,
        MnF2 4.873 3.310 0.305, FeF2 4.697 3.309 0.3, CoF2 4.695 3.180 0.304, NiF2 4.651 3.084 0.302,
        ZnF2 4.703 3.134 0.303
    """),
    "perovskite": _table("""
        SrTiO3 3.905, BaTiO3 4.006, EuTiO3 3.905, BaZrO3 4.193, BaHfO3 4.171, BaSnO3 4.116, KTaO3 3.989,
        KNbO3 4.022, SrVO3 3.842, SrFeO3 3.850, SrMoO3 3.975, BaThO3 4.480, KMgF3 3.989, KMnF3 4.190,
        KFeF3 4.120, KCoF3 4.071, KNiF3 4.012, KZnF3 4.055, RbMnF3 4.243, RbCaF3 4.455, CsCaF3 4.523,
        CsCdF3 4.464, CsPbCl3 5.605, CsPbBr3 5.874, CsSnBr3 5.804, CsSnI3 6.219, CsPbI3 6.289
    """),
    "corundum": _table("""
        Al2O3 4.759 12.993 0.3522 0.3062, Cr2O3 4.959 13.594 0.3475 0.3058,
        Fe2O3 5.038 13.772 0.3553 0.3059, V2O3 4.952 14.003 0.3463 0.3115,
        Ti2O3 5.157 13.610 0.3448 0.313, Ga2O3 4.983 13.433 0.3554 0.3049
    """),
    "quartz": _table("""
        SiO2 4.913 5.405 0.4697 0.4135 0.2669 0.7858, GeO2 4.987 5.652 0.4513 0.397 0.3021 0.7576
    """),
}
