package net

// ethernetHeader is the size of an Ethernet header: two addresses and a type.
const ethernetHeader = 14
