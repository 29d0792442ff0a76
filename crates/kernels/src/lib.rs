#![doc = include_str!("../README.md")]

mod attention;
mod cls_attention;
mod conv;
mod dispatch;
mod exp;
mod gelu;
mod lanes;
mod layer_norm;
mod level;
mod linear;
mod matrix;
mod narrow;
mod pair_row;
mod panels;
mod row_map;
mod rows;
mod scatter;
mod spans;
mod upsampled_softmax;

pub use attention::{AttentionShape, attention, attention_backward};
pub use cls_attention::{cls_attention, cls_attention_backward};
pub use conv::{ConvShape, conv, conv_input_gradient, conv_weight_gradient};
pub use dispatch::simd;
pub use exp::exp;
pub use gelu::{gelu, gelu_backward};
pub use lanes::{LANES, dot, max, softmax};
pub use layer_norm::{NormStats, layer_norm, layer_norm_backward};
pub use level::{LEVEL_VARIABLE, Level};
pub use linear::{LinearGrads, linear, linear_backward};
pub use matrix::{Matrix, MatrixMut, Threads, gemm};
pub use narrow::{NARROW, NarrowBlock};
pub use pair_row::{PairRow, PairSums};
pub use panels::{
    Epilogue, PackedLinear, PanelShape, one_thread, panel_attention, panel_layer_norm, panel_products,
    panel_rope, prefetch_read,
};
pub use row_map::RowMap;
pub use rows::{add_column_sums, for_each_row};
pub use scatter::{CentredRows, RankOne, SCATTER_UNIT};
pub use spans::Spans;
pub use upsampled_softmax::UpsampledSoftmax;
