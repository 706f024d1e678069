# A model of one's own: examples/auraflow, built against the installed library, on every kind of mesh.
set(example_flags "")
if(TESSERA_SANITIZE)  # what is linked with a sanitized library must be sanitized too
  set(example_flags "-fsanitize=address,undefined")
endif()
add_test(NAME examples/auraflow COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/examples/test_auraflow.sh ${CMAKE_BINARY_DIR}
         WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
set_tests_properties(examples/auraflow PROPERTIES TIMEOUT 1800
  ENVIRONMENT "${mpi_environment};OMP_WAIT_POLICY=passive;MPIEXEC=${MPIEXEC_EXECUTABLE};CFLAGS=${example_flags}")
# What its file says of itself, as a plan counts it.
add_executable(test_describe examples/test_describe.c ${PROJECT_SOURCE_DIR}/examples/auraflow/auraflow_transformer.c)
target_include_directories(test_describe PRIVATE .)
target_link_libraries(test_describe room_pipelines)
foreach(ranks 2 4)
  add_test(NAME examples/describe-${ranks} COMMAND ${MPIEXEC_EXECUTABLE} -n ${ranks} $<TARGET_FILE:test_describe>
           WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(examples/describe-${ranks} PROPERTIES ENVIRONMENT "${mpi_environment}" TIMEOUT 900)
endforeach()
