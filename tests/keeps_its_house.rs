//! Promise: the code keeps to the rules of its house.
