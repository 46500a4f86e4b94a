//! A store in memory with the semantics of the durable one: for the simulator and for unit tests of nodes.

use super::{Record, StoreError, StoreReply, StoreRequest};
use std::collections::BTreeMap;

/// Outlives the node that uses it, as a disk does: what it acknowledged is there after the node was rebuilt.
#[derive(Clone, Default, Debug)]
pub struct MemoryStore {
    rows: BTreeMap<i64, Row>,
    by_key: BTreeMap<String, i64>,
    by_sort: BTreeMap<String, i64>,
    last_id: i64,
}

#[derive(Clone, Debug)]
struct Row {
    sort: String,
    keys: Vec<String>,
    record: Record,
}

impl MemoryStore {
    /// Does all of the request or nothing.
    pub fn perform(&mut self, request: StoreRequest) -> Result<StoreReply, StoreError> {
        match request {
            StoreRequest::Load { key } => Ok(StoreReply::Loaded(self.load(&key))),
            StoreRequest::Insert { sort, keys, body, state } => {
                self.check_free(None, &sort, &keys)?;
                self.last_id += 1;
                let record = Record { id: self.last_id, version: 1, body, state };
                self.put(Row { sort, keys, record });
                Ok(StoreReply::Inserted { id: self.last_id })
            }
            StoreRequest::Replace { id, version, sort, keys, body, state } => {
                self.current(id, version)?;
                self.check_free(Some(id), &sort, &keys)?;
                self.take(id);
                let version = version + 1;
                self.put(Row { sort, keys, record: Record { id, version, body, state } });
                Ok(StoreReply::Changed { version })
            }
            StoreRequest::Commit { id, version, state } => {
                let row = self.current(id, version)?;
                row.record.version += 1;
                row.record.state = state;
                Ok(StoreReply::Changed { version: version + 1 })
            }
            StoreRequest::Remove { id, version } => {
                self.current(id, version)?;
                self.take(id);
                Ok(StoreReply::Removed)
            }
            StoreRequest::List { after, limit } => Ok(StoreReply::Listed(self.list(after, limit))),
        }
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn load(&self, key: &str) -> Option<Record> {
        self.rows.get(self.by_key.get(key)?).map(|row| row.record.clone())
    }

    fn list(&self, after: String, limit: u32) -> Vec<Record> {
        let later = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
        let ids = self.by_sort.range(later).map(|(_, id)| id);
        ids.filter_map(|id| self.rows.get(id)).map(|row| row.record.clone()).take(limit as usize).collect()
    }

    fn current(&mut self, id: i64, version: u64) -> Result<&mut Row, StoreError> {
        self.rows.get_mut(&id).filter(|row| row.record.version == version).ok_or(StoreError::Conflict)
    }

    fn check_free(&self, own: Option<i64>, sort: &str, keys: &[String]) -> Result<(), StoreError> {
        let taken = |holder: Option<&i64>| holder.is_some_and(|id| Some(*id) != own);
        if taken(self.by_sort.get(sort)) {
            return Err(StoreError::Duplicate(sort.into()));
        }
        match keys.iter().find(|key| taken(self.by_key.get(*key))) {
            Some(key) => Err(StoreError::Duplicate(key.clone())),
            None => Ok(()),
        }
    }

    fn put(&mut self, row: Row) {
        let id = row.record.id;
        self.by_sort.insert(row.sort.clone(), id);
        self.by_key.extend(row.keys.iter().map(|key| (key.clone(), id)));
        self.rows.insert(id, row);
    }

    fn take(&mut self, id: i64) {
        if let Some(row) = self.rows.remove(&id) {
            self.by_sort.remove(&row.sort);
            for key in &row.keys {
                self.by_key.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(sort: &str, keys: &[&str]) -> StoreRequest {
        let keys = keys.iter().map(|k| (*k).into()).collect();
        StoreRequest::Insert { sort: sort.into(), keys, body: sort.into(), state: vec![] }
    }

    fn load(store: &mut MemoryStore, key: &str) -> Option<Record> {
        match store.perform(StoreRequest::Load { key: key.into() }) {
            Ok(StoreReply::Loaded(record)) => record,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_record_is_found_by_any_of_its_keys_and_changed_under_a_version_check() {
        let mut s = MemoryStore::default();
        assert_eq!(s.perform(insert("1", &["a", "b"])), Ok(StoreReply::Inserted { id: 1 }));
        let commit = |version| StoreRequest::Commit { id: 1, version, state: vec![7] };
        assert_eq!(s.perform(commit(1)), Ok(StoreReply::Changed { version: 2 }));
        assert_eq!(s.perform(commit(1)), Err(StoreError::Conflict));
        assert_eq!(load(&mut s, "b"), Some(Record { id: 1, version: 2, body: b"1".to_vec(), state: vec![7] }));
        let keys = vec!["b".into(), "c".into()];
        let replace = StoreRequest::Replace { id: 1, version: 2, sort: "1".into(), keys, body: vec![], state: vec![] };
        assert_eq!(s.perform(replace), Ok(StoreReply::Changed { version: 3 }));
        assert_eq!(load(&mut s, "a"), None);
        assert!(load(&mut s, "c").is_some());
        assert_eq!(s.perform(StoreRequest::Remove { id: 1, version: 2 }), Err(StoreError::Conflict));
        assert_eq!(s.perform(StoreRequest::Remove { id: 1, version: 3 }), Ok(StoreReply::Removed));
        assert!(load(&mut s, "c").is_none() && s.is_empty());
    }

    #[test]
    fn a_key_or_sort_of_another_record_is_a_duplicate_and_changes_nothing() {
        let mut s = MemoryStore::default();
        s.perform(insert("1", &["a"])).unwrap();
        assert_eq!(s.perform(insert("2", &["x", "a"])), Err(StoreError::Duplicate("a".into())));
        assert_eq!(s.perform(insert("1", &["x"])), Err(StoreError::Duplicate("1".into())));
        assert_eq!((s.len(), load(&mut s, "x")), (1, None));
    }

    #[test]
    fn listing_goes_on_after_the_last_one_seen() {
        let mut s = MemoryStore::default();
        for sort in ["3", "1", "2"] {
            s.perform(insert(sort, &[sort])).unwrap();
        }
        let Ok(StoreReply::Listed(page)) = s.perform(StoreRequest::List { after: "1".into(), limit: 1 }) else {
            panic!()
        };
        assert_eq!(page.iter().map(|r| r.body.clone()).collect::<Vec<_>>(), [b"2"]);
    }
}
