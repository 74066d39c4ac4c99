//! What stays when a text turns bad: pure, from what the files say now and what was good before to a [`Snapshot`].

use super::Snapshot;
use crate::resource::document::{Content, Document};
use crate::resource::{Position, Problem, Resource, ResourceId};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a file says: its documents, or why it says nothing.
pub(super) type Parsed = Arc<Result<Vec<Document>, Problem>>;

/// What the directory says: its files in order, or why it says nothing.
pub(super) type Listing = Result<Vec<(PathBuf, Parsed)>, Problem>;

/// The last good state of a resource, and where the document is that defines it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Good {
    resource: Resource,
    file: PathBuf,
    at: Position,
}

/// The last good state of every resource.
#[derive(Debug, Default)]
pub(super) struct State {
    good: BTreeMap<ResourceId, Good>,
}

impl State {
    /// Takes in what the directory says now.
    ///
    /// The first document of a name counts, in order of files and lines. One that is refused counts as its resource's
    /// last good state. One that does not show which resource it is, and a file that cannot be read as a whole, count
    /// as everything that their file defined and that no document defines any more. A directory that cannot be read
    /// changes nothing. What no document stands for is gone.
    pub fn merge(&mut self, listing: Listing) -> Snapshot {
        let before = std::mem::take(&mut self.good);
        let mut now = Merge { before, now: BTreeMap::new(), problems: Vec::new() };
        match listing {
            Ok(files) => {
                for (file, parsed) in files {
                    match parsed.as_ref() {
                        Ok(documents) => now.documents(&file, documents),
                        Err(problem) => {
                            let kept = now.keep_all(|good| good.file == file);
                            now.problems.push(Problem { kept, ..problem.clone() });
                        }
                    }
                }
            }
            Err(problem) => {
                let kept = now.keep_all(|_| true);
                now.problems.push(Problem { kept, ..problem });
            }
        }
        self.good = now.now;
        let mut resources = crate::resource::Resources::default();
        let mut places = BTreeMap::new();
        for (id, good) in &self.good {
            resources.insert(good.resource.clone());
            places.insert(id.clone(), (good.file.clone(), good.at));
        }
        Snapshot { resources, places, problems: now.problems }
    }
}

struct Merge {
    before: BTreeMap<ResourceId, Good>,
    now: BTreeMap<ResourceId, Good>,
    problems: Vec<Problem>,
}

impl Merge {
    fn documents(&mut self, file: &Path, documents: &[Document]) {
        let mut unknown = Vec::new();
        for document in documents {
            let mut kept = false;
            match (&document.content, &document.id) {
                (Content::Resource(resource), _) => self.define(file, document, resource),
                (Content::Refused, Some(id)) => kept = self.keep(id, Some((file, document.at))),
                (Content::Refused, None) => {
                    unknown.push(self.problems.len()..self.problems.len() + document.problems.len());
                }
                (Content::Unused, _) => {}
            }
            let problems = document.problems.iter().cloned();
            self.problems
                .extend(problems.map(|problem| Problem { kept: kept && problem.is_error(), ..problem }));
        }
        if !unknown.is_empty() && self.keep_all(|good| good.file == file) {
            for i in unknown.into_iter().flatten() {
                self.problems[i].kept = self.problems[i].is_error();
            }
        }
    }

    fn define(&mut self, file: &Path, document: &Document, resource: &Resource) {
        let id = resource.id();
        if let Some(first) = self.now.get(&id) {
            let message = format!(
                "already defined at {}:{}, which counts; remove or rename one",
                first.file.display(),
                first.at.line
            );
            let problem = Problem::at(file, document.at, &message).in_field("metadata.name");
            self.problems.push(Problem { resource: Some(id.to_string()), ..problem });
            return;
        }
        let good = Good { resource: resource.clone(), file: file.to_owned(), at: document.at };
        self.now.insert(id, good);
    }

    /// Keeps the last good state of a resource, from now on defined at `place` if that is known; false when there is no
    /// such state, or the resource has been defined before.
    fn keep(&mut self, id: &ResourceId, place: Option<(&Path, Position)>) -> bool {
        match self.before.get(id) {
            Some(good) if !self.now.contains_key(id) => {
                let mut good = good.clone();
                if let Some((file, at)) = place {
                    (good.file, good.at) = (file.to_owned(), at);
                }
                self.now.insert(id.clone(), good);
                true
            }
            _ => false,
        }
    }

    /// Keeps the last good state of all that `of` chooses and nothing defines yet; false when there is none.
    fn keep_all(&mut self, of: impl Fn(&Good) -> bool) -> bool {
        let chosen: Vec<_> =
            self.before.iter().filter(|(_, good)| of(good)).map(|(id, _)| id.clone()).collect();
        let kept = chosen.iter().filter(|id| self.keep(id, None)).count();
        kept > 0
    }
}
