//! What a child has to do, made of what `Popen._execute_child` is given. Whatever is not plain (functions that run in the
//! child, other users, arguments that are refused) is left to Popen's own code, which has the errors for it.

use super::popen::PopenArguments;
use ioxide_cpython::call::import;
use ioxide_cpython::value::{file_system_string, list_items, list_of, text};
use ioxide_cpython::{Any, Object, Result};
use ioxide_io::Order;
use std::ffi::CString;
use std::os::fd::RawFd;

/// A child that can begin while the loop goes on.
pub(super) struct Command {
    pub(super) order: Order,
    /// What an audit hook and an error are told.
    pub(super) program: Object,
    pub(super) arguments: Object,
    pub(super) spawned_environment: Option<Object>,
}

impl Command {
    /// `None` where Popen's own code has to start the child. Changes nothing, so that it can.
    pub(super) fn compose(given: &PopenArguments<'_>) -> Result<Option<Command>> {
        let is_plain = given.preexec_fn.is_none()
            && given.user.is_none()
            && given.group.is_none()
            && given.extra_groups.is_none()
            && (given.environment.is_none() || is_exactly(given.environment, c"dict")?);
        let (true, Some(items)) = (is_plain, argument_items(given)?) else { return Ok(None) };
        let Some(first) = items.first() else { return Ok(None) };
        let program = if given.executable.is_none() { first.clone() } else { given.executable.to_object() };
        let Some(passed) = passed_descriptors(given.pass_fds)? else { return Ok(None) };
        let spawned_environment = given.spawned_environment(&program)?;
        let Some(environment) = environment(spawned_environment.as_deref().unwrap_or(given.environment))?
        else {
            return Ok(None);
        };
        let Some(programs) = places(&program, given.environment)? else { return Ok(None) };
        let arguments = items.iter().map(|item| file_system_string(item)).collect::<Result<Vec<_>>>()?;
        let directory = match given.directory.is_none() {
            true => None,
            false => Some(file_system_string(given.directory)?),
        };
        let [input, output, error] = given.childs_streams()?;
        let order = Order::new(programs, arguments, environment)
            .directory(directory)
            .streams([input, output, error])
            .descriptors(passed, given.close_fds.is_true()?)
            .file_mode_mask(given.umask.to_i32()?)
            .restore_signals(given.restore_signals.is_true()?)
            .session(given.start_new_session.is_true()?, given.process_group.to_i32()?);
        Ok(Some(Command { order, program, arguments: list_of(items)?, spawned_environment }))
    }
}

impl PopenArguments<'_> {
    /// The environment that Popen would have given to `os.posix_spawn`, where it would have called that: its audit hooks
    /// hear of it, and an error names the program as it does, as text or bytes. `None` elsewhere.
    fn spawned_environment(&self, program: &Any) -> Result<Option<Object>> {
        let module = import(c"subprocess")?;
        let closes = module.get_attribute_optional(&*text("_HAVE_POSIX_SPAWN_CLOSEFROM")?)?;
        let may_close = closes.as_deref().map_or(Ok(false), Any::is_true)?;
        let is_spawned = module.get_attribute_str(c"_USE_POSIX_SPAWN")?.is_true()?
            && file_system_string(program)?.as_bytes().contains(&b'/')
            && (may_close || !self.close_fds.is_true()?)
            && !self.pass_fds.is_true()?
            && self.directory.is_none()
            && self.childs_streams()?.iter().all(|fd| !(0..=2).contains(fd))
            && !self.start_new_session.is_true()?
            && self.process_group.to_i32()? == -1
            && self.umask.to_i32()? < 0;
        Ok(match (is_spawned, self.environment.is_none() && closes.is_none()) {
            (false, _) => None,
            // Before 3.13 Python's own mapping, which may lack what C code has set.
            (true, true) => Some(import(c"os")?.get_attribute_str(c"environ")?),
            (true, false) => Some(self.environment.to_object()),
        })
    }
}

/// The program's arguments, the shell's before them.
fn argument_items(given: &PopenArguments<'_>) -> Result<Option<Vec<Object>>> {
    let mut items: Vec<Object> = match given.arguments {
        single if single.is_string() || single.is_bytes() => vec![single.to_object()],
        several if several.is_tuple() => several.tuple_items().iter().map(|item| item.to_object()).collect(),
        several if is_exactly(several, c"list")? => list_items(several),
        _ => return Ok(None),
    };
    if given.shell.is_true()? {
        let shell = if given.executable.is_true()? { given.executable.to_object() } else { text("/bin/sh")? };
        items.splice(0..0, [shell, text("-c")?]);
    }
    Ok(Some(items))
}

/// Where the program may be.
fn places(program: &Any, environment: &Any) -> Result<Option<Vec<CString>>> {
    let name = file_system_string(program)?;
    if name.as_bytes().contains(&b'/') {
        return Ok(Some(vec![name]));
    }
    let mut places = Vec::new();
    let path = import(c"os")?.get_attribute_str(c"get_exec_path")?.call1(environment)?;
    for directory in list_items(&path) {
        let mut place = file_system_string(&directory)?.into_bytes();
        if place.last().is_some_and(|last| *last != b'/') {
            place.push(b'/');
        }
        place.extend_from_slice(name.as_bytes());
        places.extend(CString::new(place));
    }
    Ok((!places.is_empty()).then_some(places))
}

fn environment(given: &Any) -> Result<Option<Vec<CString>>> {
    if given.is_none() {
        // SAFETY: Python changes the environment with the GIL held, as it is here.
        return Ok(Some(unsafe { ioxide_io::environment() }));
    }
    let mut environment = Vec::new();
    for item in given.call_method0(&*text("items")?)?.iterate()? {
        let item = item?;
        let [name, value] = item.tuple_items() else { return Ok(None) };
        let (name, value) = (file_system_string(name)?, file_system_string(value)?);
        if name.as_bytes().contains(&b'=') {
            return Ok(None);
        }
        environment.extend(CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()));
    }
    Ok(Some(environment))
}

/// Descriptors that the program gets; `None` for what is no sequence of plain numbers.
fn passed_descriptors(given: &Any) -> Result<Option<Vec<RawFd>>> {
    let items: Vec<Object> = match given.is_tuple() {
        true => given.tuple_items().iter().map(|item| item.to_object()).collect(),
        false if is_exactly(given, c"list")? => list_items(given),
        false => return Ok(None),
    };
    let mut passed = Vec::new();
    for item in items {
        match item.is_exact_integer().then(|| item.to_i32()).transpose()? {
            Some(fd) if fd >= 0 => passed.push(fd),
            _ => return Ok(None),
        }
    }
    passed.sort_unstable();
    passed.dedup();
    Ok(Some(passed))
}

fn is_exactly(object: &Any, class: &std::ffi::CStr) -> Result<bool> {
    Ok(object.get_type().is(&*import(c"builtins")?.get_attribute_str(class)?))
}
