//! The code of asyncio's own Python functions: what a release of asyncio does is told by the names and constants that its
//! functions use, where the version number does not tell it.

use crate::object::{Any, Object, Result};
use crate::value::text;

/// The code object of a Python function.
pub struct Code(Object);

impl Code {
    /// Fails: AttributeError for what is no Python function.
    pub fn of(function: &Any) -> Result<Code> {
        function.get_attribute_str(c"__code__").map(Code)
    }

    /// Of a method of a class. Fails: AttributeError.
    pub fn of_method(class: &Any, method: &str) -> Result<Code> {
        Code::of(&*class.get_attribute(&*text(method)?)?)
    }

    /// Whether the code uses a global or an attribute of that name.
    pub fn uses(&self, name: &str) -> Result<bool> {
        Ok(self.table(c"co_names")?.iter().any(|used| used == name))
    }

    /// Whether the code uses a global, an attribute or a local variable of that name.
    pub fn mentions(&self, name: &str) -> Result<bool> {
        Ok(self.names_and_variables()?.iter().any(|used| used == name))
    }

    /// The names that the code uses, then its local variables, each in the order of its first use.
    pub fn names_and_variables(&self) -> Result<Vec<String>> {
        let mut used = self.table(c"co_names")?;
        used.extend(self.table(c"co_varnames")?);
        Ok(used)
    }

    fn table(&self, name: &std::ffi::CStr) -> Result<Vec<String>> {
        let names = self.0.get_attribute_str(name)?;
        names.tuple_items().iter().map(|name| Ok(name.to_text()?.into_string())).collect()
    }

    /// The first text among the constants that begins so. (Numbers and truth values need not be among them.)
    pub fn text_beginning(&self, beginning: &str) -> Result<Option<String>> {
        for constant in self.0.get_attribute_str(c"co_consts")?.tuple_items() {
            if constant.is_string() && constant.to_text()?.as_str().starts_with(beginning) {
                return Ok(Some(constant.to_text()?.into_string()));
            }
        }
        Ok(None)
    }

    /// The functions that are defined in it, without those that only tell annotations (3.14 and later).
    pub fn nested(&self) -> Result<Vec<Code>> {
        let constants = self.0.get_attribute_str(c"co_consts")?;
        let functions =
            constants.tuple_items().iter().filter(|constant| constant.get_type().is(self.0.get_type()));
        let mut nested = Vec::new();
        for code in functions {
            if code.get_attribute_str(c"co_name")?.to_text()?.as_str() != "__annotate__" {
                nested.push(Code(code.to_object()));
            }
        }
        Ok(nested)
    }

    /// The one of them with that name.
    pub fn nested_named(&self, name: &str) -> Result<Option<Code>> {
        for code in self.nested()? {
            if code.0.get_attribute_str(c"co_name")?.to_text()?.as_str() == name {
                return Ok(Some(code));
            }
        }
        Ok(None)
    }
}
