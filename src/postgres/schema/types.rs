//! Types by oid: what to look for in a value's text output.

use std::collections::HashMap;

/// How many domains may stand on one another, or types in one another, before a chain counts as broken. The server
/// forbids cycles; a torn answer is not bound by that.
pub(crate) const MAX_DEPTH: usize = 32;

/// One row of `pg_type`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Type {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    pub kind: TypeKind,
}

/// What a type is made of, as far as its text output shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TypeKind {
    /// A scalar.
    Base,
    /// `{…}`; `delimiter` is the element type's.
    Array {
        element: u32,
        delimiter: u8,
    },
    /// `int2vector` and `oidvector`: an array by type, written as numbers between spaces.
    Vector {
        element: u32,
    },
    Domain {
        base: u32,
    },
    Enum,
    /// `(…)`, without dropped attributes.
    Composite {
        fields: Vec<Field>,
    },
    Range,
    Multirange,
    /// No column can be of it.
    Pseudo,
}

/// An attribute of a composite type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    pub name: String,
    pub type_oid: u32,
}

/// All types of a database by oid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Types {
    by_oid: HashMap<u32, Type>,
}

impl Types {
    /// The oid of `text`.
    pub const TEXT: u32 = 25;

    /// The types that every server has, under the oids that they have on every server.
    #[must_use]
    pub fn builtin() -> Self {
        let scalar = |&(oid, name, array): &(u32, &str, u32)| {
            let base = |kind| Type { oid, schema: CATALOG.to_owned(), name: name.to_owned(), kind };
            let this = match oid {
                INT2VECTOR => base(TypeKind::Vector { element: INT2 }),
                OIDVECTOR => base(TypeKind::Vector { element: OID }),
                _ if name.ends_with("multirange") => base(TypeKind::Multirange),
                _ if name.ends_with("range") => base(TypeKind::Range),
                _ => base(TypeKind::Base),
            };
            let delimiter = if oid == BOX { b';' } else { b',' };
            let kind = TypeKind::Array { element: oid, delimiter };
            [this, Type { oid: array, schema: CATALOG.to_owned(), name: format!("_{name}"), kind }]
        };
        BUILTIN.iter().flat_map(scalar).collect()
    }

    /// Adds a type, or replaces the one of its oid.
    pub fn insert(&mut self, this: Type) {
        self.by_oid.insert(this.oid, this);
    }

    #[must_use]
    pub fn knows(&self, oid: u32) -> bool {
        self.by_oid.contains_key(&oid)
    }

    #[must_use]
    pub fn get(&self, oid: u32) -> Option<&Type> {
        self.by_oid.get(&oid)
    }

    /// In no order.
    pub fn iter(&self) -> impl Iterator<Item = &Type> {
        self.by_oid.values()
    }

    #[must_use]
    pub fn kind(&self, oid: u32) -> Option<&TypeKind> {
        self.get(oid).map(|this| &this.kind)
    }

    /// The type under a domain, or under a domain on a domain; any other is its own base.
    #[must_use]
    pub fn base(&self, oid: u32) -> u32 {
        let under = |&oid: &u32| match self.kind(oid) {
            Some(&TypeKind::Domain { base }) => Some(base),
            _ => None,
        };
        std::iter::successors(Some(oid), under).take(MAX_DEPTH).last().unwrap_or(oid)
    }

    /// The two arrays whose text output has no braces.
    pub(super) const fn is_vector(oid: u32) -> bool {
        matches!(oid, INT2VECTOR | OIDVECTOR)
    }
}

impl FromIterator<Type> for Types {
    fn from_iter<I: IntoIterator<Item = Type>>(types: I) -> Self {
        Self { by_oid: types.into_iter().map(|this| (this.oid, this)).collect() }
    }
}

const CATALOG: &str = "pg_catalog";
const INT2: u32 = 21;
const INT2VECTOR: u32 = 22;
const OID: u32 = 26;
const OIDVECTOR: u32 = 30;
const BOX: u32 = 603;

/// Oid, name and oid of the array type (PostgreSQL's `src/include/catalog/pg_type.dat`). Oids below 10,000 are
/// assigned by hand there and never change.
#[rustfmt::skip]
const BUILTIN: &[(u32, &str, u32)] = &[
    (16, "bool", 1000), (17, "bytea", 1001), (18, "char", 1002), (19, "name", 1003), (20, "int8", 1016),
    (21, "int2", 1005), (22, "int2vector", 1006), (23, "int4", 1007), (24, "regproc", 1008), (25, "text", 1009), (26, "oid", 1028),
    (27, "tid", 1010), (28, "xid", 1011), (29, "cid", 1012), (30, "oidvector", 1013), (114, "json", 199), (142, "xml", 143),
    (600, "point", 1017), (601, "lseg", 1018), (602, "path", 1019), (603, "box", 1020),
    (604, "polygon", 1027), (628, "line", 629), (650, "cidr", 651), (700, "float4", 1021),
    (701, "float8", 1022), (718, "circle", 719), (774, "macaddr8", 775), (790, "money", 791),
    (829, "macaddr", 1040), (869, "inet", 1041), (1033, "aclitem", 1034), (1042, "bpchar", 1014),
    (1043, "varchar", 1015), (1082, "date", 1182), (1083, "time", 1183), (1114, "timestamp", 1115),
    (1184, "timestamptz", 1185), (1186, "interval", 1187), (1266, "timetz", 1270), (1560, "bit", 1561),
    (1562, "varbit", 1563), (1700, "numeric", 1231), (1790, "refcursor", 2201),
    (2202, "regprocedure", 2207), (2203, "regoper", 2208), (2204, "regoperator", 2209),
    (2205, "regclass", 2210), (2206, "regtype", 2211), (2950, "uuid", 2951), (2970, "txid_snapshot", 2949),
    (3220, "pg_lsn", 3221), (3614, "tsvector", 3643), (3615, "tsquery", 3645), (3642, "gtsvector", 3644),
    (3734, "regconfig", 3735), (3769, "regdictionary", 3770), (3802, "jsonb", 3807),
    (3904, "int4range", 3905), (3906, "numrange", 3907), (3908, "tsrange", 3909), (3910, "tstzrange", 3911),
    (3912, "daterange", 3913), (3926, "int8range", 3927), (4072, "jsonpath", 4073),
    (4089, "regnamespace", 4090), (4096, "regrole", 4097), (4191, "regcollation", 4192),
    (4451, "int4multirange", 6150), (4532, "nummultirange", 6151), (4533, "tsmultirange", 6152),
    (4534, "tstzmultirange", 6153), (4535, "datemultirange", 6155), (4536, "int8multirange", 6157),
    (5038, "pg_snapshot", 5039), (5069, "xid8", 271),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builtin_types_have_their_arrays() {
        let types = Types::builtin();
        assert_eq!(types.kind(23), Some(&TypeKind::Base));
        assert_eq!(types.kind(1007), Some(&TypeKind::Array { element: 23, delimiter: b',' }));
        assert_eq!(types.kind(1020), Some(&TypeKind::Array { element: BOX, delimiter: b';' }));
        assert_eq!(types.kind(1006), Some(&TypeKind::Array { element: INT2VECTOR, delimiter: b',' }));
        assert_eq!(types.kind(3904), Some(&TypeKind::Range));
        assert_eq!(types.kind(4451), Some(&TypeKind::Multirange));
        assert!(!types.knows(16_384));
    }

    #[test]
    fn base_looks_through_domains_and_survives_a_cycle() {
        let domain = |oid, base| Type {
            oid,
            schema: "public".to_owned(),
            name: format!("d{oid}"),
            kind: TypeKind::Domain { base },
        };
        let mut types = Types::builtin();
        for (oid, base) in [(20_000, 23), (20_001, 20_000), (20_002, 20_003), (20_003, 20_002)] {
            types.insert(domain(oid, base));
        }
        assert_eq!(types.base(20_001), 23);
        assert_eq!(types.base(23), 23);
        assert_eq!(types.base(99), 99);
        assert!(matches!(types.base(20_002), 20_002 | 20_003));
    }
}
