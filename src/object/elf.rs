//! The sections, symbols and relocations of an ELF file, as far as maps need them.

use std::borrow::Cow;
use std::collections::HashMap;

use ::object::LittleEndian;
use ::object::elf::{self, FileHeader64};
use ::object::read::elf::{FileHeader as _, Rel as _, SectionHeader as _, Sym as _};

use super::ObjectError;

/// What an object file holds.
#[derive(Debug)]
pub(super) struct Elf<'a> {
    /// All sections but the first, which is none.
    pub sections: Vec<Section<'a>>,
    /// All symbols, in the table's order; relocations count from here.
    pub symbols: Vec<Symbol<'a>>,
    /// The variables that others can see, by name: the first of each.
    variables: HashMap<Cow<'a, str>, usize>,
}

/// One section.
#[derive(Debug)]
pub(super) struct Section<'a> {
    pub index: usize,
    pub name: Cow<'a, str>,
    pub kind: elf::SectionType,
    pub is_code: bool,
    /// Bytes in memory.
    pub size: u64,
    /// Bytes in the file: none for `.bss`.
    pub data: &'a [u8],
    /// Where a section of relocations applies.
    pub info: u32,
    /// The relocations in it: where, and the symbol's index.
    pub relocations: Vec<(u64, usize)>,
}

/// One symbol.
#[derive(Debug)]
pub(super) struct Symbol<'a> {
    pub name: Cow<'a, str>,
    /// The section that it is defined in.
    pub section: Option<usize>,
    pub value: u64,
    pub size: u64,
    pub kind: elf::SymbolType,
    /// Global or weak.
    pub is_global: bool,
    /// Not seen outside this object, though global.
    pub is_hidden: bool,
}

impl<'a> Elf<'a> {
    /// Reads a relocatable object for BPF.
    ///
    /// # Errors
    ///
    /// For anything else, and for tables that lie outside the file.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, ObjectError> {
        let broken = |error: ::object::read::Error| ObjectError::not_an_object(error);
        let header = FileHeader64::<LittleEndian>::parse(bytes).map_err(broken)?;
        if !header.is_little_endian() {
            return Err(ObjectError::not_an_object("its bytes are big-endian"));
        }
        let machine = header.e_machine(LittleEndian);
        if header.e_type(LittleEndian) != elf::ET_REL
            || (machine != elf::EM_BPF && machine != elf::EM_NONE)
        {
            return Err(ObjectError::not_an_object(
                "not a relocatable file for the machine BPF",
            ));
        }
        let table = header.sections(LittleEndian, bytes).map_err(broken)?;
        let symbol_table = table
            .symbols(LittleEndian, bytes, elf::SHT_SYMTAB)
            .map_err(broken)?;
        if symbol_table.is_empty() {
            return Err(ObjectError::not_an_object("no symbol table: stripped?"));
        }
        let mut sections = Vec::new();
        for (index, section) in table.enumerate().skip(1) {
            let name = table.section_name(LittleEndian, section).map_err(broken)?;
            let name = String::from_utf8_lossy(name);
            let of_section = |error: ::object::read::Error| ObjectError::section(&name, error);
            let relocations = section.rel(LittleEndian, bytes).map_err(of_section)?;
            sections.push(Section {
                index: index.0,
                kind: section.sh_type(LittleEndian),
                is_code: section.sh_flags(LittleEndian).contains(elf::SHF_EXECINSTR),
                size: section.sh_size(LittleEndian),
                data: section.data(LittleEndian, bytes).map_err(of_section)?,
                info: section.sh_info(LittleEndian),
                relocations: relocations.map_or_else(Vec::new, |(relocations, _)| {
                    relocations
                        .iter()
                        .map(|rel| (rel.r_offset(LittleEndian), rel.r_sym(LittleEndian) as usize))
                        .collect()
                }),
                name,
            });
        }
        let mut symbols = vec![];
        for (index, symbol) in symbol_table.enumerate() {
            let name = symbol_table
                .symbol_name(LittleEndian, symbol)
                .map_err(broken)?;
            let section = symbol_table.symbol_section(LittleEndian, symbol, index);
            symbols.push(Symbol {
                name: String::from_utf8_lossy(name),
                section: section.ok().flatten().map(|index| index.0),
                value: symbol.st_value(LittleEndian),
                size: symbol.st_size(LittleEndian),
                kind: symbol.st_type(),
                is_global: matches!(symbol.st_bind(), elf::STB_GLOBAL | elf::STB_WEAK),
                is_hidden: matches!(symbol.st_visibility(), elf::STV_HIDDEN | elf::STV_INTERNAL),
            });
        }
        Ok(Self::with_names(sections, symbols))
    }

    fn with_names(sections: Vec<Section<'a>>, symbols: Vec<Symbol<'a>>) -> Self {
        let mut variables = HashMap::new();
        for (at, symbol) in symbols.iter().enumerate() {
            if symbol.kind == elf::STT_OBJECT && symbol.is_global {
                variables.entry(symbol.name.clone()).or_insert(at);
            }
        }
        Self {
            sections,
            symbols,
            variables,
        }
    }

    /// The first section of that name.
    pub(super) fn section(&self, name: &str) -> Option<&Section<'a>> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// The variable of that name that others can see.
    pub(super) fn variable(&self, name: &str) -> Option<&Symbol<'a>> {
        self.variables.get(name).map(|&at| &self.symbols[at])
    }
}
