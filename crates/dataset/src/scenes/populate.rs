//! What stands where: each place as a short list of rows.
//!
//! "Houses from 6 m out, cars along the kerb, lamps every 12 m": distances are from the street's middle
//! line, and `street` turns each row into solids.

use super::WATER;
use super::barrier::Make;
use super::street::Street;
use super::world::Place;

impl Street<'_> {
    /// Furnishes a whole place.
    pub(super) fn set_up(&mut self, place: Place) {
        for side in [0, 1] {
            match place {
                Place::Town => self.town(side),
                Place::Suburb => self.suburb(side),
                Place::Country => self.country(side),
                Place::Highway => self.highway(side),
                Place::Park => self.park(side),
                Place::Riverside => self.riverside(side),
                Place::CarPark => self.car_park(side),
                Place::Square => self.square(side),
            }
        }
        let crowd = match place {
            Place::Town | Place::Park | Place::Riverside => self.dice.count(4, 14),
            Place::Square => self.dice.count(9, 22),
            Place::Suburb | Place::CarPark => self.dice.count(3, 9),
            Place::Country | Place::Highway => self.dice.count(0, 3),
        };
        self.people(crowd);
    }

    fn town(&mut self, side: usize) {
        let kerb = self.ground.half_width(side);
        let line = self.building_line(side);
        let storeys = self.dice.between(6.0, 26.0);
        self.houses(side, line, (7.0, 20.0), (0.6 * storeys, 1.3 * storeys), 0.12);
        self.parked(side, kerb - 1.1, 0.55);
        self.traffic(side, kerb * 0.5, 3);
        self.poles(side, kerb + 0.4, 12.0);
        if self.dice.chance(0.55) {
            let height = self.dice.between(4.0, 9.0);
            self.trees(side, kerb + 1.0, kerb + 1.2, 13.0, height);
        }
        if self.dice.chance(0.3) {
            self.barriers(side, kerb + 0.25, 0.4, &[Make::Railing, Make::Railing, Make::Pickets]);
        }
    }

    fn suburb(&mut self, side: usize) {
        let kerb = self.ground.half_width(side);
        let garden = kerb + self.dice.between(2.8, 4.6);
        let front = garden + self.dice.between(3.0, 9.0);
        self.houses(side, front, (8.0, 14.0), (4.5, 7.5), 0.35);
        match self.dice.count(0, 2) {
            0 => self.hedges(side, garden),
            1 => self.barriers(side, garden, 0.8, &[Make::Pickets, Make::Boards, Make::Brick, Make::Rubble]),
            _ => {}
        }
        let height = self.dice.between(4.0, 10.0);
        self.trees(side, garden + 0.5, front, 9.0, height);
        self.parked(side, kerb - 1.0, 0.3);
        self.traffic(side, kerb * 0.5, 1);
        self.poles(side, kerb + 0.5, 20.0);
    }

    fn country(&mut self, side: usize) {
        let kerb = self.ground.half_width(side);
        let height = self.dice.between(5.0, 13.0);
        self.trees(side, kerb + 2.5, kerb + 40.0, 7.0, height);
        match self.dice.count(0, 3) {
            0 => self.hedges(side, kerb + 2.0),
            1 | 2 => self.barriers(
                side,
                kerb + 2.0,
                0.9,
                &[Make::Pickets, Make::Rubble, Make::CrashBarrier, Make::Boards],
            ),
            _ => {}
        }
        if self.dice.chance(0.5) {
            self.houses(side, kerb + 14.0, (9.0, 22.0), (4.0, 7.0), 0.85);
        }
        self.poles(side, kerb + 1.2, 22.0);
        self.traffic(side, kerb * 0.5, 2);
    }

    fn highway(&mut self, side: usize) {
        let kerb = self.ground.half_width(side);
        self.barriers(
            side,
            kerb + 0.6,
            0.95,
            &[Make::CrashBarrier, Make::CrashBarrier, Make::Boards, Make::Rubble],
        );
        let height = self.dice.between(5.0, 12.0);
        self.trees(side, kerb + 4.0, kerb + 25.0, 6.0, height);
        self.traffic(side, kerb * 0.3, 3);
        self.traffic(side, kerb * 0.75, 3);
        self.poles(side, kerb + 1.0, 18.0);
    }

    fn park(&mut self, side: usize) {
        let path = self.ground.half_width(side);
        let height = self.dice.between(5.0, 13.0);
        self.trees(side, path + 1.5, path + 22.0, 4.0, height);
        self.trees(side, path + 1.0, path + 12.0, 9.0, 1.6);
        if self.dice.chance(0.35) {
            self.hedges(side, path + 1.0);
        }
        if self.dice.chance(0.35) {
            self.barriers(side, path + 0.6, 0.8, &[Make::Railing, Make::Pickets, Make::Rubble]);
        }
        if self.dice.chance(0.35) {
            self.houses(side, path + 28.0, (10.0, 24.0), (7.0, 24.0), 0.3);
        }
        self.poles(side, path + 0.5, 16.0);
    }

    fn riverside(&mut self, side: usize) {
        let kerb = self.ground.half_width(side);
        let bands = &self.ground.sides[side];
        let water = bands.iter().position(|band| band.surface.class == WATER);
        if let Some(water) = water {
            let (bank, far_bank) = (bands[water - 1].outer, bands[water].outer);
            self.barriers(side, bank - 0.2, 0.75, &[Make::Railing, Make::Railing, Make::Rubble, Make::Brick]);
            self.houses(side, far_bank + 4.0, (9.0, 20.0), (6.0, 18.0), 0.4);
            self.trees(side, far_bank + 0.5, far_bank + 4.0, 8.0, 7.0);
        } else {
            let line = self.building_line(side);
            self.houses(side, line, (7.0, 18.0), (7.0, 20.0), 0.25);
        }
        self.trees(side, kerb + 1.0, kerb + 1.4, 14.0, 7.0);
        self.poles(side, kerb + 0.5, 14.0);
        self.parked(side, kerb - 1.0, 0.25);
        self.traffic(side, kerb * 0.5, 1);
    }

    fn car_park(&mut self, side: usize) {
        let edge = self.ground.half_width(side);
        let mut away = 3.0 + 2.5;
        while away < edge - 2.0 {
            self.bay_row(side, away);
            away += 5.5;
        }
        self.houses(side, edge + 6.0, (16.0, 40.0), (5.0, 14.0), 0.45);
        self.trees(side, edge + 1.0, edge + 5.0, 9.0, 6.0);
        self.poles(side, 5.5, 19.0);
        if self.dice.chance(0.6) {
            self.barriers(side, edge + 0.4, 0.8, &[Make::Railing, Make::Boards, Make::Brick]);
        }
    }

    fn square(&mut self, side: usize) {
        let kerb = self.ground.half_width(side);
        let line = self.building_line(side);
        self.houses(side, line, (8.0, 24.0), (8.0, 24.0), 0.1);
        self.trees(side, kerb + 2.0, line - 2.0, 12.0, 6.0);
        self.poles(side, kerb + 0.5, 9.0);
        self.barriers(side, kerb + 0.3, 0.3, &[Make::Railing, Make::Rubble]);
        self.traffic(side, kerb * 0.5, 1);
    }
}
