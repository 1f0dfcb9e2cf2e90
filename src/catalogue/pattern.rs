//! The regular expression of a parameter. Parameters with the same text share one expression. An expression is compiled
//! when it is first needed. The compiled expressions of a process have a limited total size.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};

use arc_swap::ArcSwapOption;
use regex_automata::meta::{BuildError, Config, Regex};

/// The maximum size of one compiled expression in bytes. It is an eighth of the total, so that no expression evicts all
/// others.
const COMPILED_BYTES_CEILING: usize = 2 << 20;
/// The maximum total size of the compiled expressions in bytes. It is enough for about 600 expressions with a common
/// class, such as `^[A-Z0-9]{15}$`. If a catalogue has more expressions, requests have to compile evicted expressions
/// again. Each compilation takes a few tenths of a millisecond.
const COMPILED_BYTES_MAX: usize = 16 << 20;
/// The memory that a thread may use for each direction of a search. It is enough for the states of common expressions.
const SEARCH_BYTES_MAX: usize = 64 << 10;
/// The table is searched for unused texts only if it contains at least this many texts.
const UNUSED_TEXTS_MIN: usize = 64;

/// A regular expression. Clones share its compiled form.
#[derive(Clone)]
pub struct Pattern(Arc<SharedPattern>);

struct SharedPattern {
    text: Box<str>,
    /// The compiled form, if it is in memory.
    compiled: ArcSwapOption<Regex>,
    /// Whether the compiled form has been used since the last eviction considered it (the reference bit of the CLOCK
    /// algorithm).
    was_used: AtomicBool,
}

/// All patterns of the process.
#[derive(Default)]
struct PatternTable {
    by_text: HashMap<Box<str>, Weak<SharedPattern>>,
    /// The number of texts at which unused texts are removed.
    texts_max: usize,
    /// The compiled patterns, each with its size. The next one to be evicted is at the front.
    compiled: VecDeque<(Weak<SharedPattern>, usize)>,
    compiled_bytes: usize,
}

static TABLE: LazyLock<Mutex<PatternTable>> = LazyLock::new(Mutex::default);

/// The reason why a text is not a regular expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PatternError(String);

impl Pattern {
    /// Checks a regular expression.
    ///
    /// # Errors
    /// Returns `PatternError` if the syntax is invalid, or if the compiled expression is too large.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        if let Some(known) = lock().by_text.get(text).and_then(Weak::upgrade) {
            return Ok(Self(known));
        }
        drop(compile(text).map_err(|error| describe(&error))?);
        let (compiled, was_used) = (ArcSwapOption::empty(), AtomicBool::new(false));
        let new = Arc::new(SharedPattern { text: text.into(), compiled, was_used });
        Ok(Self(lock().share(new)))
    }

    /// Returns the text of the expression.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// Returns whether the expression matches a part of `text`.
    #[must_use]
    pub fn is_match(&self, text: &str) -> bool {
        let shared = &self.0;
        if let Some(regex) = &*shared.compiled.load() {
            // The flag is written only if it changes, because a write would slow down the other
            // threads.
            if !shared.was_used.load(Ordering::Relaxed) {
                shared.was_used.store(true, Ordering::Relaxed);
            }
            return regex.is_match(text);
        }
        let Ok(regex) = compile(&shared.text) else {
            debug_assert!(false, "the expression compiled when the catalogue was loaded");
            return false;
        };
        let regex = Arc::new(regex);
        lock().keep(shared, &regex);
        regex.is_match(text)
    }
}

impl PatternTable {
    /// Adds a pattern, or returns the one that has the same text.
    fn share(&mut self, new: Arc<SharedPattern>) -> Arc<SharedPattern> {
        if let Some(known) = self.by_text.get(&new.text).and_then(Weak::upgrade) {
            return known;
        }
        if self.by_text.len() >= self.texts_max {
            self.by_text.retain(|_, pattern| pattern.strong_count() > 0);
            self.texts_max = (2 * self.by_text.len()).max(UNUSED_TEXTS_MIN);
        }
        self.by_text.insert(new.text.clone(), Arc::downgrade(&new));
        new
    }

    /// Keeps the compiled form of a pattern, and evicts others until the limit is met.
    fn keep(&mut self, pattern: &Arc<SharedPattern>, regex: &Arc<Regex>) {
        if pattern.compiled.swap(Some(Arc::clone(regex))).is_some() {
            // Another thread has compiled the expression in the meantime, and has counted it.
            return;
        }
        let bytes = size(regex);
        self.compiled.push_back((Arc::downgrade(pattern), bytes));
        self.compiled_bytes += bytes;
        // Every pattern is considered at most twice. The first time, it is marked as unused.
        for _ in 0..2 * self.compiled.len() {
            if self.compiled_bytes <= COMPILED_BYTES_MAX || self.compiled.len() == 1 {
                break;
            }
            let Some((oldest, bytes)) = self.compiled.pop_front() else { break };
            match oldest.upgrade() {
                Some(used) if used.was_used.swap(false, Ordering::Relaxed) => {
                    self.compiled.push_back((oldest, bytes));
                }
                unused => {
                    self.compiled_bytes = self.compiled_bytes.saturating_sub(bytes);
                    if let Some(unused) = unused {
                        unused.compiled.store(None);
                    }
                }
            }
        }
    }
}

/// Returns the memory of a compiled expression and of one search with it.
fn size(regex: &Regex) -> usize {
    regex.memory_usage() + regex.create_cache().memory_usage()
}

fn compile(text: &str) -> Result<Regex, Box<BuildError>> {
    let config = Config::new()
        .nfa_size_limit(Some(COMPILED_BYTES_CEILING))
        .hybrid_cache_capacity(SEARCH_BYTES_MAX)
        // The one-pass engine only speeds up capture groups, which are not needed here.
        .onepass(false);
    Regex::builder().configure(config).build(text).map_err(Box::new)
}

fn describe(error: &BuildError) -> PatternError {
    if error.size_limit().is_some() {
        let mib = COMPILED_BYTES_CEILING >> 20;
        return PatternError(format!("the compiled expression is larger than {mib} MiB"));
    }
    let text = error.syntax_error().map_or_else(|| error.to_string(), ToString::to_string);
    // The lines above the last one mark the position in the expression.
    let last = text.lines().last().unwrap_or_default();
    PatternError(last.trim_start_matches("error: ").to_owned())
}

fn lock() -> MutexGuard<'static, PatternTable> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&self.0.text).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_compiled(pattern: &Pattern) -> bool {
        pattern.0.compiled.load().is_some()
    }

    #[test]
    fn equal_texts_share_one_pattern_that_is_compiled_on_first_use() {
        let [one, other] = [(); 2].map(|()| Pattern::new("^shared-[a-z]{3}$").unwrap());
        assert!(Arc::ptr_eq(&one.0, &other.0));
        assert!(!is_compiled(&one));
        assert!(one.is_match("shared-abc") && !one.is_match("shared-abcd"));
        assert!(is_compiled(&other));
        assert_eq!((one.as_str(), one.to_string().as_str()), (other.as_str(), "^shared-[a-z]{3}$"));
    }

    #[test]
    fn invalid_and_huge_expressions_are_refused() {
        let error = |text: &str| Pattern::new(text).unwrap_err().to_string();
        assert_eq!(error("("), "unclosed group");
        assert_eq!(error(r"\w{5000}{50}"), "the compiled expression is larger than 2 MiB");
    }

    #[test]
    fn compiled_patterns_have_a_limited_size_and_used_ones_stay() {
        let used = Pattern::new("^used-[a-z]{3}$").unwrap();
        assert!(used.is_match("used-abc"));
        let others: Vec<Pattern> =
            (0..160).map(|n| Pattern::new(&format!(r"^{n}-\pL{{1,20}}$")).unwrap()).collect();
        let mut bytes = 0;
        for (n, pattern) in others.iter().enumerate() {
            assert!(pattern.is_match(&format!("{n}-ab")), "{pattern}");
            assert!(used.is_match("used-abc") && is_compiled(&used), "used after {n} others");
            bytes += pattern.0.compiled.load().as_deref().map_or(0, size);
        }
        assert!(bytes > 2 * COMPILED_BYTES_MAX, "{bytes}: the others exceed the limit");
        let compiled: Vec<_> = others.iter().filter(|pattern| is_compiled(pattern)).collect();
        assert!(!compiled.is_empty() && compiled.len() < others.len(), "{}", compiled.len());
        assert!(lock().compiled_bytes <= COMPILED_BYTES_MAX);
        assert!(others[0].is_match("0-ab"), "an evicted pattern is compiled again");
    }

    #[test]
    fn unused_texts_are_removed() {
        for n in 0..2_000 {
            drop(Pattern::new(&format!("^{n}-forgotten$")).unwrap());
        }
        let texts = lock().by_text.len();
        assert!(texts < 1_000, "{texts}");
    }
}
