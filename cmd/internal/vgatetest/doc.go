// Package vgatetest runs the drivers on a real kernel: inside a virtual machine
// with a GPIO chip that plays waveforms and logs every change of an output, an
// I2C bus with an MLX90614, USB serial that can be unplugged, and a keyboard.
//
// Its tests are built with the tag vgate and run in the machine by .ci/vgate;
// elsewhere there is nothing to run them on.
package vgatetest
