# A model of one's own: examples/auraflow, built against the installed library, on every kind of mesh.
set(example_flags "")
if(TESSERA_SANITIZE)  # what is linked with a sanitized library must be sanitized too
  set(example_flags "-fsanitize=address,undefined")
endif()
add_test(NAME examples/auraflow COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/examples/test_auraflow.sh ${CMAKE_BINARY_DIR}
         WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
set_tests_properties(examples/auraflow PROPERTIES TIMEOUT 1800
  ENVIRONMENT "${mpi_environment};OMP_WAIT_POLICY=passive;MPIEXEC=${MPIEXEC_EXECUTABLE};CFLAGS=${example_flags}")
