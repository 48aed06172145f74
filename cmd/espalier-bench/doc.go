// Command espalier-bench compares forward proxies side by side on one machine.
//
// It starts origins on loopback, starts each proxy in a process of its own (or
// takes a running one, -target), loads it and reads what it cost from /proc:
// CPU, memory, descriptors and kernel slab of the proxy alone. Load and origins
// run in this process, whose CPU is not counted; every byte is checked against
// a known pattern, so a proxy that corrupts data fails instead of winning.
//
// One round runs every scenario with every peer in shuffled order, each sample
// with a fresh process, so that peers meet the machine in the same minutes.
// Figures are medians over the rounds with their spread; ratios are formed
// within a round first. Linux only.
package main
