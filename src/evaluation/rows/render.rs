//! The renderer of the built-in world of shapes: `render` of `models/shapes/recipe/world.py`, whose pictures the built-in
//! models learned. The same scene and seed give the same picture, up to rounding.

use std::f32::consts::PI;

use lsregen_tensor::candle_core::{Device, Tensor};
use lsregen_tensor::image::{self, Resampling};
use lsregen_tensor::noise::Generator;
use lsregen_tensor::{Error, Result, checked_elements};

use super::shapes::{Scene, Shape};

/// The sides of the two grids of noise that make the ground's texture, and its amplitudes.
const TEXTURES: [(usize, f32); 2] = [(16, 0.02), (64, 0.025)];

/// Red, green and blue in 0..1.
type Colour = [f32; 3];

/// Renders a scene as (1, 3, `side`, `side`) in [-1, 1]. `seed` decides the texture of the ground and the direction in which its
/// colour changes; the shapes do not depend on it.
///
/// # Errors
/// If `side` is 0, if a name in the scene is not one of the world, if a box is empty, or if the memory cannot be had.
pub fn render(scene: &Scene, side: usize, seed: u64) -> Result<Tensor> {
    if side == 0 {
        return Err(Error::input("a picture needs a side of at least 1 pixel"));
    }
    let mut random = Generator::new(seed);
    let mut pixels = ground(scene.ground, side, &mut random)?;
    for shape in &scene.shapes {
        draw(&mut pixels, side, shape)?;
    }
    let plane = |channel: usize| pixels.iter().map(move |pixel| pixel[channel].clamp(0.0, 1.0) * 2.0 - 1.0);
    let planes: Vec<f32> = (0..3).flat_map(plane).collect();
    Ok(Tensor::from_vec(planes, (1, 3, side, side), &Device::Cpu)?)
}

/// Returns the pixels of a ground, row by row: a gradient between its two colours in a random direction, with texture.
fn ground(name: &str, side: usize, random: &mut Generator) -> Result<Vec<Colour>> {
    let (from, to) = ground_colours(name)?;
    let angle = f64::from(random.uniforms(1)[0]) * std::f64::consts::TAU;
    let (sin, cos) = (angle.sin() as f32, angle.cos() as f32);
    let mut pixels: Vec<Colour> = image::room(checked_elements(&[side, side, 3])? / 3)?;
    for y in 0..side {
        for x in 0..side {
            let t = ((centre(x, side) - 0.5) * cos + (centre(y, side) - 0.5) * sin) * 0.9 + 0.5;
            pixels.push(std::array::from_fn(|i| from[i] * (1.0 - t) + to[i] * t));
        }
    }
    for (grid, amplitude) in TEXTURES {
        let noise = Tensor::from_vec(random.uniforms(grid * grid), (1, 1, grid, grid), &Device::Cpu)?;
        let noise = image::resize(&noise, side, side, Resampling::Bicubic)?.flatten_all()?.to_vec1::<f32>()?;
        for (pixel, n) in pixels.iter_mut().zip(noise) {
            *pixel = pixel.map(|value| value + (n - 0.5) * 2.0 * amplitude);
        }
    }
    Ok(pixels)
}

/// Draws a shape over the pixels: its shadow, then its filling, lit from the upper left, with a dark outline.
fn draw(pixels: &mut [Colour], side: usize, shape: &Shape) -> Result<()> {
    let (colour, distance) = (colour(shape.colour)?, outline(shape.shape)?);
    let [x0, y0, x1, y1] = shape.bounds;
    let (cx, cy) = (((x0 + x1) / 2.0) as f32, ((y0 + y1) / 2.0) as f32);
    let (rx, ry) = (((x1 - x0) / 2.0) as f32, ((y1 - y0) / 2.0) as f32);
    if !(rx > 0.0 && ry > 0.0 && rx.is_finite() && ry.is_finite()) {
        return Err(Error::input(format!("{} has an empty box, {:?}", shape.phrase(), shape.bounds)));
    }
    let r = rx.min(ry);
    let pixel_size = 1.0 / side as f32;
    for (i, pixel) in pixels.iter_mut().enumerate() {
        let u = (centre(i % side, side) - cx) / rx;
        let v = (centre(i / side, side) - cy) / ry;
        // 2.5 pixels of a 256-pixel picture, whatever the size of this one.
        let shadow = sigmoid(-distance(u - 0.06, v - 0.10) * r / (2.5 / 256.0 + 0.004));
        let d = distance(u, v) * r;
        let light = 1.0 + 0.22 * (-(u + v) * 0.5).clamp(-1.0, 1.0);
        let edge = sigmoid((d + 0.018) / (pixel_size * 0.6)); // the outline is 0.018 of the picture wide
        let inside = sigmoid(-d / (pixel_size * 0.5));
        for (value, c) in pixel.iter_mut().zip(colour) {
            let fill = (c * light).clamp(0.0, 1.0) * (1.0 - 0.55 * edge);
            *value = *value * (1.0 - 0.35 * shadow) * (1.0 - inside) + fill * inside;
        }
    }
    Ok(())
}

/// Returns the centre of a pixel in fractions of the picture.
fn centre(at: usize, side: usize) -> f32 {
    (at as f32 + 0.5) / side as f32
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// Returns the function that gives the signed distance of a point (u, v) from the outline of a shape whose box is
/// [-1, 1]²: negative inside.
fn outline(name: &str) -> Result<fn(f32, f32) -> f32> {
    match name {
        "circle" => Ok(|u, v| (u * u + v * v).sqrt() - 1.0),
        "square" => Ok(|u, v| u.abs().max(v.abs()) - 1.0),
        // The apex is at the top.
        "triangle" => Ok(|u, v| ((u.abs() * 2.0 - (v + 1.0)) / 2.0 * (2.0 / 5f32.sqrt())).max(v - 1.0)),
        "star" => Ok(star),
        _ => Err(Error::input(format!(
            "`{name}` is no shape of the built-in world: write circle, square, triangle or star"
        ))),
    }
}

/// A star with five points. By symmetry, one edge of one point decides.
fn star(u: f32, v: f32) -> f32 {
    const INNER: f32 = 0.42; // the radius of the corners between the points
    let (u, v) = (u * 0.951, v * 0.9045 - 0.0955);
    let r = (u * u + v * v).sqrt();
    let m = PI / 5.0;
    let a = (u.atan2(-v) + m).rem_euclid(2.0 * m) - m;
    let (px, py) = (r * a.abs().sin(), r * a.cos());
    let (ex, ey) = (INNER * m.sin(), INNER * m.cos() - 1.0);
    (-px * ey + (py - 1.0) * ex) / ex.hypot(ey)
}

fn colour(name: &str) -> Result<Colour> {
    match name {
        "red" => Ok([0.86, 0.16, 0.18]),
        "green" => Ok([0.16, 0.66, 0.28]),
        "blue" => Ok([0.16, 0.34, 0.86]),
        "yellow" => Ok([0.96, 0.82, 0.16]),
        "purple" => Ok([0.56, 0.22, 0.72]),
        "white" => Ok([0.95, 0.95, 0.95]),
        _ => Err(Error::input(format!("`{name}` is no colour of the built-in world"))),
    }
}

fn ground_colours(name: &str) -> Result<(Colour, Colour)> {
    match name {
        "sand" => Ok(([0.87, 0.74, 0.52], [0.80, 0.66, 0.44])),
        "slate" => Ok(([0.36, 0.40, 0.44], [0.27, 0.30, 0.35])),
        "moss" => Ok(([0.42, 0.52, 0.30], [0.33, 0.42, 0.24])),
        "clay" => Ok(([0.70, 0.45, 0.34], [0.60, 0.36, 0.27])),
        _ => Err(Error::input(format!("`{name}` is no ground of the built-in world: write sand, slate, moss or clay"))),
    }
}
