//! The reducers that cells need, as sources of a bank, and the cells as the bank knows them.

use anyhow::Result;
use dimred::{Map, Reducer};
use probe::BankCell;

use super::{Cell, ReducerId};
use crate::exit::usage;
use crate::stages::probe::Kind;

/// A reducer that was asked for.
struct Fitted {
    id: ReducerId,
    /// What it is and which source shows it, or why there is none.
    found: Result<(Reducer, usize), String>,
}

/// Cells as a bank knows them.
#[derive(Default)]
pub(super) struct Seen {
    reducers: Vec<Fitted>,
    /// A map for each source.
    pub(super) maps: Vec<Option<Map>>,
    /// The cells whose reducer was found, and
    pub(super) cells: Vec<Cell>,
    /// what the bank calls them.
    pub(super) bank: Vec<(Kind, BankCell)>,
}

impl Seen {
    /// Adds a cell; its reducer is fitted when it is the first to need it.
    pub(super) fn add(
        &mut self,
        cell: &Cell,
        all: &[&Cell],
        fit: &mut impl FnMut(&ReducerId) -> Result<Reducer>,
        clusters: usize,
    ) -> Result<()> {
        let known = self.reducers.iter().position(|fitted| fitted.id == cell.reducer);
        let at = match known {
            Some(at) => at,
            None => {
                let fitted = fit(&cell.reducer).and_then(|reducer| {
                    let map = widest(&reducer, &cell.reducer, all)?;
                    Ok((reducer, map))
                });
                let (found, error) = match fitted {
                    Ok((reducer, map)) => {
                        self.maps.push(map);
                        (Ok((reducer, self.maps.len() - 1)), None)
                    }
                    Err(error) => (Err(crate::exit::one_line(&error)), Some(error)),
                };
                self.reducers.push(Fitted { id: cell.reducer.clone(), found });
                if let Some(error) = error {
                    return Err(error);
                }
                self.reducers.len() - 1
            }
        };
        let (reducer, source) =
            self.reducers[at].found.as_ref().map_err(|reason| anyhow::anyhow!("{reason}"))?;
        let kind = cell.probe.of_bank(clusters);
        let scale = match reducer.prefix_scale(cell.dim) {
            Some(scale) => scale,
            None => {
                reducer.at(cell.dim).map_err(|e| usage(e.to_string()))?;
                1.0
            }
        };
        let bank = BankCell { source: *source, dim: cell.dim, scale, kind, seed: cell.seed };
        self.bank.push((cell.probe, bank));
        self.cells.push(cell.clone());
        Ok(())
    }
}

/// A reducer at the most dimensions that any cell asks of it. Where dimensions nest, the numbers are those of the reducer's
/// widest map, so that they do not depend on which cells there are.
fn widest(reducer: &Reducer, id: &ReducerId, cells: &[&Cell]) -> Result<Option<Map>> {
    if matches!(reducer, Reducer::Identity(_)) {
        return Ok(None);
    }
    let most = cells.iter().filter(|cell| cell.reducer == *id).map(|cell| cell.dim).max().unwrap_or(1);
    let map = reducer.at(most).map_err(|e| usage(e.to_string()))?;
    let nested = reducer.prefix_scale(most).is_some();
    let widest = reducer.at(reducer.max_dim())?;
    Ok(Some(match widest.affine() {
        Some(affine) if nested => Map::Affine(affine.first(most)),
        _ => map,
    }))
}
